"""Which copies wait for a worker thread, and how many threads there are: pure functions.

What each number is worth is measured in docs/performance.md, what is still to be measured for a
GPU in docs/gpu.md. In plain mode (`speed.plain`) nothing waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from reference_loader.plan.decisions import Action, Conversion, Placement, Workers

# Bytes of a file that are cast at a time: they are read and cast within a core's cache.
CHUNK = 2**21

# Torch pins memory in powers of two: a slot leaves room for the margin that the ring adds.
BESIDE = 2**14

# To a GPU: bytes of one pinned slot, slots of a thread, threads; enough to keep a PCIe link busy.
SLOT = 2**24 - BESIDE
SLOTS = 2
LANES = 8


def waits(action: Action, nbytes: int, device: Any) -> bool:
    """Whether worker threads are faster than a copy in the calling thread.

    Args:
        action: what is done with the tensor.
        nbytes: its bytes as stored.
        device: where it goes.
    """
    if action in (Action.OFFLOAD, Action.WRITE):
        return False
    large = action is Action.CAST and nbytes > CHUNK
    return device.type == "cuda" or (device.type == "cpu" and large)


def workers_for(placements: Iterable[Placement | Conversion]) -> dict[torch.device, Workers]:
    """The threads for each device that a waiting copy goes to."""
    cores = torch.get_num_threads()
    on_gpu, on_cpu = Workers(min(LANES, cores), SLOTS, SLOT), Workers(cores, 1, CHUNK)
    devices = {placement.device for placement in placements if placement.waits}
    return {device: on_gpu if device.type == "cuda" else on_cpu for device in devices}
