"""Carry out the plan: map, cast, place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import nn
from tqdm import tqdm

from reference_loader.devices import DISK, memory_device
from reference_loader.formats import Opened, opened
from reference_loader.offload import Offloaded
from reference_loader.plan import LoadPlan, Placement
from reference_loader.skeleton import put


def pump(plan: LoadPlan, model: nn.Module, offloaded: Offloaded) -> None:
    """Fill every slot of `model` that the plan has a stored tensor for.

    A tensor whose dtype is the checkpoint's own becomes a view of the mapped file, so nothing is
    copied; another is cast once, from its stored value (DTY-7). One file is open at a time. What
    belongs on disk is noted in `offloaded` and its parameter stays empty (OFF-1).
    """
    # disable=None: a bar on a terminal, nothing in a log.
    with tqdm(total=len(plan.placements), desc="Loading", leave=False, disable=None) as bar:
        for placements in _by_file(plan.placements):
            source = opened(placements[0].stored.file, plan.weights_only)
            for placement in placements:
                _carry_out(placement, source, model, offloaded)
                bar.update()
    _move_buffers(plan, model)


def _by_file(placements: Iterable[Placement]) -> list[list[Placement]]:
    files = defaultdict(list)
    for placement in placements:
        files[placement.stored.file].append(placement)
    return [sorted(group, key=lambda placement: placement.stored.start) for group in files.values()]


def _carry_out(
    placement: Placement, source: Opened, model: nn.Module, offloaded: Offloaded
) -> None:
    on_disk = placement.device == DISK
    if on_disk and offloaded.leave(placement):
        return
    device = torch.device("cpu") if on_disk else placement.device
    # Only the values count: no gradient flag (FMT-15), no order of memory (FMT-14).
    stored = source.view(placement.stored).detach().contiguous()
    tensor = stored.to(device=device, dtype=placement.dtype)
    if on_disk:
        offloaded.write(placement.target, tensor)
    else:
        put(model, placement.target, tensor)


def _move_buffers(plan: LoadPlan, model: nn.Module) -> None:
    """The buffers that no file holds, to where their modules are."""
    if plan.device_map is None:
        return
    for name, buffer in list(model.named_buffers()):
        put(model, name, buffer.to(memory_device(name, plan.device_map)))
