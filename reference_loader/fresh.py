"""The weights that the checkpoint does not hold.

They are made before any weight is read, while every parameter that will be loaded is still on
meta: there the model's own initialisation can run as it is, and neither touches a loaded weight
nor draws a random number for one (MIS-3, MIS-6).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import nn

from reference_loader.skeleton import Skeleton, build, like, put


def initialise(
    skeleton: Skeleton,
    construct: Callable[[], nn.Module],
    dtype: torch.dtype,
    fresh: Mapping[str, torch.dtype],
    initialiser: Callable[[nn.Module], Callable[[nn.Module], object] | None],
) -> None:
    """Give the parameters of `fresh` the values that a newly made model would have (MIS-1).

    First what the constructor gives, then what the class's own initialisation makes of it. The
    modules that hold buffers of their own pass through the latter as well: it is where the newest
    release computes them.

    Args:
        skeleton: the empty model; its parameters in `fresh` become real.
        construct, dtype: as for `skeleton.build`.
        fresh: parameter name to dtype.
        initialiser: a submodule to the function that initialises it and what is below, or None.
    """
    if fresh:
        orders = {skeleton.slots[name].order for name in fresh}
        donor = build(construct, dtype, real=orders).model
        for name, wanted in fresh.items():
            put(skeleton.model, name, _donated(donor, name, wanted))
    with torch.no_grad():
        _run(skeleton.model, "", None, set(fresh), initialiser)


def _donated(donor: nn.Module, name: str, dtype: torch.dtype) -> nn.Parameter:
    parameter = donor.get_parameter(name)
    if parameter.is_meta:  # computed by the constructor from a parameter that is loaded
        return like(parameter, torch.zeros(parameter.shape, dtype=dtype))
    return like(parameter, parameter.data.to(dtype))


def _run(
    module: nn.Module,
    path: str,
    apply: Callable[[nn.Module], object] | None,
    fresh: Collection[str],
    initialiser: Callable[[nn.Module], Callable[[nn.Module], object] | None],
) -> None:
    apply = initialiser(module) or apply
    below = [name for name in fresh if name.startswith(path)]
    for name, child in module.named_children():
        _run(child, f"{path}{name}.", apply, below, initialiser)
    if apply is not None and (below or module._non_persistent_buffers_set):
        apply(module)
