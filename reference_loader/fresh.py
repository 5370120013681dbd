"""The weights that the checkpoint does not hold.

They are made before any weight is read, while every parameter that will be loaded is still on
meta: there the model's own initialisation can run as it is, and neither touches a loaded weight
nor draws a random number for one (MIS-3, MIS-6).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import torch
from torch import nn

from reference_loader.skeleton import Skeleton, build, like, named, on_cpu, put


class Everything:
    """Contains all there is."""

    def __contains__(self, _: object) -> bool:
        return True


def initialise(
    skeleton: Skeleton,
    construct: Callable[[], nn.Module],
    dtype: torch.dtype,
    fresh: Mapping[str, torch.dtype],
    initialiser: Callable[[nn.Module], Callable[[nn.Module], object] | None],
    *,
    lacking: Collection[str] = (),
) -> None:
    """Give the parameters of `fresh` the values that a newly made model would have (MIS-1).

    First what the constructor gives, then what the class's own initialisation makes of it. The
    modules whose buffers no file holds pass through the latter as well: it is where the newest
    release computes them.

    Args:
        skeleton: the empty model; its parameters in `fresh` become real.
        construct, dtype: as for `skeleton.build`.
        fresh: parameter name to dtype.
        initialiser: a submodule to the function that initialises it and what is below, or None.
        lacking: slots that no stored tensor fills, buffers too.
    """
    model = skeleton.model
    derived = [
        named(path, leaf)
        for path, module in skeleton.modules.items()
        for leaf, buffer in module._buffers.items()
        if buffer is not None and buffer.is_meta
    ]
    if fresh or derived:
        orders = {skeleton.slots[name].order for name in fresh}
        donated = _donated([*fresh, *derived], construct, dtype, orders)
        for name, tensor in donated.items():
            put(model, name, _as(tensor, fresh.get(name, tensor.dtype)))
    with torch.no_grad(), on_cpu():
        _run(model, "", None, _to_initialise(skeleton, fresh, lacking), initialiser)


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


def _as(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if isinstance(tensor, nn.Parameter):
        return like(tensor, tensor.data.to(dtype))
    return tensor


def _to_initialise(
    skeleton: Skeleton, fresh: Collection[str], lacking: Collection[str]
) -> dict[str, bool]:
    """The paths that lead to something to initialise, and whether there is something there.

    Of a fresh parameter that is every path: whoever initialises a module may set what is below.
    """
    paths = {above: True for name in fresh for above in _above(name)}
    buffers = {name.rpartition(".")[0] for name in lacking if skeleton.slots[name].kind == "buffer"}
    for path, module in skeleton.modules.items():
        if module._non_persistent_buffers_set or path in buffers:
            for above in _above(path):
                paths.setdefault(above, False)
            paths[path] = True
    return paths


def _above(name: str) -> Iterator[str]:
    while name:
        name = name.rpartition(".")[0]
        yield name


def _run(
    module: nn.Module,
    path: str,
    apply: Callable[[nn.Module], object] | None,
    paths: Mapping[str, bool],
    initialiser: Callable[[nn.Module], Callable[[nn.Module], object] | None],
) -> None:
    """Initialise what is below before the module itself, as a model's own initialisation does."""
    apply = initialiser(module) or apply
    for name, child in module.named_children():
        if named(path, name) in paths:
            _run(child, named(path, name), apply, paths, initialiser)
    if apply is not None and paths.get(path):
        apply(module)
