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
from reference_loader.model.skeleton import (
    EVERY,
    NEEDS_NO_VALUES,
    Skeleton,
    build,
    like,
    on_cpu,
    put,
)

# In the name of a parameter from which `torch.nn.utils.parametrize` computes a weight.
PARAMETRIZATIONS = ".parametrizations."


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
    for name in skeleton.sharing.names & fresh.keys():  # has the constructor's values already
        vars(model.get_parameter(name)).pop(NEEDS_NO_VALUES, None)
    names = [name for name in fresh if name not in skeleton.sharing.names]
    # A class that looks at a weight which is computed from several needs values for all of them.
    lists = {name.rpartition(".")[0] for name in names if PARAMETRIZATIONS in name}
    companions = {
        name: parameter
        for name, parameter in (model.named_parameters() if lists else ())
        if name.rpartition(".")[0] in lists and name not in fresh
    }
    names += companions
    if names:
        # Where the constructor derives one value from others, all of them must have memory.
        for real in ({skeleton.slots[name].order for name in names}, EVERY):
            donor = build(architecture.construct, dtype, real=real).model
            tensors = dict(donor.named_parameters(remove_duplicate=False))
            if not any(tensors[name].is_meta for name in names):
                break
        for name in names:
            given = tensors[name]
            put(model, name, like(given, given.data.to(fresh.get(name, dtype))))
    persistent = [name for name in buffers if name in skeleton.slots]
    with torch.no_grad(), on_cpu():
        _run(model, "", None, {*fresh, *persistent}, architecture.initialiser)
    for name, parameter in companions.items():  # on meta again: the checkpoint holds their values
        put(model, name, parameter)


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
