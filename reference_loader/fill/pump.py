"""Carry out the plan: read, cast, place."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import torch
from tqdm import tqdm

from reference_loader.fill.copies import Copy
from reference_loader.fill.offload import Offloaded
from reference_loader.fill.ring import carriers
from reference_loader.formats.reader import opened
from reference_loader.formats.safetensors import MappedFile
from reference_loader.model.skeleton import Skeleton, put_into
from reference_loader.plan.decisions import Action, Placement
from reference_loader.plan.plan import LoadPlan


def pump(plan: LoadPlan, skeleton: Skeleton, offloaded: Offloaded) -> None:
    """Do with every stored tensor what the plan says, one file after the other.

    Args:
        plan: what to do.
        skeleton: the empty model, which is filled here; a parameter that is offloaded to disk
            stays empty (OFF-1).
        offloaded: notes these.
    """
    by_file: dict[Path, list[Placement]] = defaultdict(list)
    for placement in plan.placements:
        by_file[placement.stored.file].append(placement)
    # disable=None: a bar on a terminal, nothing in a log.
    with tqdm(total=len(plan.placements), desc="Loading", leave=False, disable=None) as bar:
        for placements in by_file.values():
            placements.sort(key=lambda placement: placement.stored.start)
            _pump_file(placements, plan, skeleton, offloaded)
            bar.update(len(placements))


def _pump_file(
    placements: list[Placement], plan: LoadPlan, skeleton: Skeleton, offloaded: Offloaded
) -> None:
    """The tensors of one file; each is cast once, from its stored value (DTY-7)."""
    first = placements[0].stored
    source = opened(first.file, first.format, plan.weights_only)
    mapped = source if isinstance(source, MappedFile) else None
    # Copies that wait are complete at the end of this block; where none does, it does nothing.
    with carriers() as carry:
        for placement in placements:
            if placement.action is Action.OFFLOAD:
                offloaded.leave(placement)
                continue
            # Only the values count: no gradient flag (FMT-15), no strides (FMT-14).
            stored = source.view(placement.stored).detach().contiguous()
            device, dtype = placement.device, placement.dtype
            if placement.action is Action.WRITE:
                offloaded.write(placement.target, stored.to(dtype))
                continue
            path, _, leaf = placement.target.rpartition(".")
            owner = skeleton.modules[path]
            if placement.action is Action.FILL:
                getattr(owner, leaf).detach().copy_(stored)
                continue
            if placement.waits:
                tensor = torch.empty(stored.shape, dtype=dtype, device=device)
                carry(Copy(stored, tensor, mapped), plan.workers[device])
            elif placement.action is Action.VIEW:
                tensor = stored
            else:
                tensor = stored.to(device=device, dtype=dtype)
            put_into(owner, leaf, tensor, held=placement.target in plan.sharing.held)
