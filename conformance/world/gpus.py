"""Which GPUs a case needs, and which this machine has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from conformance.cases.case import Case, Torch

CPU = "cpu"


def lacks(case: Case) -> str:
    """Why the case cannot run on this machine, for want of GPUs; empty if it can."""
    reason = absent(case.device)
    if reason or case.device == CPU:
        return reason
    wanted, there = gpus(case), torch.cuda.device_count()
    return f"needs {wanted} GPUs; this machine has {there}" if wanted > there else ""


def absent(device: str) -> str:
    """Why the device, such as a GPU, cannot be used; empty if it can."""
    there = device == CPU or torch.cuda.is_available()
    return "" if there else "no CUDA device: torch.cuda.is_available() is False"


def gpus(case: Case) -> int:
    """How many GPUs the case needs: one more than the highest index that it names."""
    asked = case.options.get("device_map")
    places = list(asked.values()) if isinstance(asked, Mapping) else [asked]
    places += [*(case.options.get("max_memory") or {})]
    return 1 + max((_index_of_gpu(place) for place in places), default=0)


def _index_of_gpu(place: Any) -> int:
    """The index of the GPU that a place of a device map names; 0 if it names none."""
    if isinstance(place, int):
        return place
    name = place.name if isinstance(place, Torch) else str(place)
    last = name.rpartition(":")[2]
    return int(last) if last.isdigit() else 0


def described(device: str) -> str:
    """The device as a report shows it: with the name of the GPU."""
    if device == CPU or not torch.cuda.is_available():
        return device
    return f"{device} ({torch.cuda.get_device_name()})"


def prepare(device: str) -> None:
    """Make matrix products on a GPU deterministic; call it before the GPU is first used."""
    if device != CPU:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
