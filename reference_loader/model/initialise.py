"""The weights that the checkpoint does not hold.

They are made before any weight is read, while every parameter that will be loaded is still on
meta: there the model's own initialisation can run as it is, and neither touches a loaded weight
nor draws a random number for one (MIS-3, MIS-6).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import nn

from reference_loader.model.architecture import Architecture
from reference_loader.model.skeleton import Skeleton, build, like, on_cpu, put


class Everything:
    """A container of every order."""

    def __contains__(self, _: object) -> bool:
        return True


def initialise(
    skeleton: Skeleton,
    architecture: Architecture,
    *,
    fresh: Mapping[str, torch.dtype],
    buffers: Collection[str],
    dtype: torch.dtype,
) -> None:
    """Give the parameters of `fresh` the values that a newly made model would have (MIS-1).

    First what the constructor gives, then what the class's own initialisation makes of it. The
    modules whose buffers no file holds pass through the latter as well: it is where the newest
    release computes them.

    Args:
        skeleton: the empty model, which is filled here.
        architecture: constructs it, and knows its initialisation.
        fresh: name to dtype of the parameters to initialise.
        buffers: names of buffers that no stored tensor fills.
        dtype: what the model is built in.
    """
    model = skeleton.model
    derived = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    if fresh or derived:
        orders = {skeleton.slots[name].order for name in fresh}
        donated = _donated([*fresh, *derived], architecture.construct, dtype, orders)
        for name, given in donated.items():
            cast = given.data.to(fresh.get(name, given.dtype))
            put(model, name, like(given, cast) if isinstance(given, nn.Parameter) else given)
    persistent = [name for name in buffers if name in skeleton.slots]
    with torch.no_grad(), on_cpu():
        _run(model, "", None, {*fresh, *persistent}, architecture.initialiser)


def _donated(
    names: list[str],
    construct: Callable[[], nn.Module],
    dtype: torch.dtype,
    orders: Collection[int],
) -> dict[str, torch.Tensor]:
    """The values the constructor gives; where it derives some from others, it needs them all."""
    for real in (orders, Everything()):
        donor = build(construct, dtype, real=real).model
        tensors: dict[str, torch.Tensor] = {
            **dict(donor.named_parameters(remove_duplicate=False)),
            **dict(donor.named_buffers(remove_duplicate=False)),
        }
        if not any(tensors[name].is_meta for name in names):
            break
    return {name: tensors[name] for name in names}


def _run(
    module: nn.Module,
    path: str,
    apply: Callable[[nn.Module], object] | None,
    wanted: Collection[str],
    initialiser: Callable[[nn.Module], Callable[[nn.Module], object] | None],
) -> None:
    apply = initialiser(module) or apply
    below = [name for name in wanted if name.startswith(path)]
    for name, child in module.named_children():
        _run(child, f"{path}{name}.", apply, below, initialiser)
    if apply is not None and (below or module._non_persistent_buffers_set):
        apply(module)
