"""Carry out the plan: map, cast, place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import nn
from tqdm import tqdm

from reference_loader.formats import Opened, opened
from reference_loader.plan import LoadPlan, Placement
from reference_loader.skeleton import put


def pump(plan: LoadPlan, model: nn.Module) -> None:
    """Fill every slot of `model` that the plan has a stored tensor for.

    A tensor whose dtype is the checkpoint's own becomes a view of the mapped file, so nothing is
    copied; another is cast once, from its stored value (DTY-7). One file is open at a time.
    """
    # disable=None: a bar on a terminal, nothing in a log.
    with tqdm(total=len(plan.placements), desc="Loading", leave=False, disable=None) as bar:
        for placements in _by_file(plan.placements):
            source = opened(placements[0].stored.file, plan.weights_only)
            for placement in placements:
                put(model, placement.target, _tensor(source, placement, plan.device))
                bar.update()


def _by_file(placements: Iterable[Placement]) -> list[list[Placement]]:
    files = defaultdict(list)
    for placement in placements:
        files[placement.stored.file].append(placement)
    return [sorted(group, key=lambda placement: placement.stored.start) for group in files.values()]


def _tensor(source: Opened, placement: Placement, device: torch.device) -> torch.Tensor:
    return source.view(placement.stored).to(device=device, dtype=placement.dtype)
