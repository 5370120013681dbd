"""What was measured, against the bounds that the reference must keep; and the machine it was on."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from conformance.bench.series import Series
from conformance.bench.workloads import BOUNDS, Bound
from conformance.results.runs import now

MB, MIB = 1e6, 2**20

PACKAGES = ("torch", "transformers", "safetensors", "accelerate")


@dataclass(frozen=True)
class Held:
    """A bound and what was measured; None where that could not be."""

    bound: Bound
    measured: float | None

    @property
    def kept(self) -> bool | None:
        """Whether the reference keeps the bound; None where nothing was measured."""
        if self.measured is None:
            return None
        if self.bound.clock == "limit":
            return self.measured >= self.bound.most
        return self.measured <= self.bound.most


def hold(series: Iterable[Series]) -> list[Held]:
    """Every bound of the measured benchmark cases, with what was measured against it."""
    by_case = {each.case.id: each for each in series}
    return [
        Held(bound, _measured(bound, by_case[bound.case]))
        for bound in BOUNDS
        if bound.case in by_case
    ]


def _measured(bound: Bound, series: Series) -> float | None:
    """What a benchmark case measured of what the bound is on; None where it has no samples."""
    row = series.rows.get(bound.of)
    if row is None or not row.samples:
        return None
    peaks, gpu = row.memory.peaks, row.memory.gpu
    ways: dict[str, Callable[[], float | None]] = {
        "peak": lambda: peaks["total"] / series.result,
        "peak, stock": lambda: series.peak_ratio(bound.of),
        "above": lambda: (peaks["total"] - series.result) / MIB,
        "anonymous": lambda: peaks["anonymous"] / MB,
        "gpu": lambda: (gpu["allocated"] - series.result) / MB,
        "limit": lambda: series.share(bound.of),
        "predicted": lambda: abs(series.predicted / peaks["total"] - 1),
    }
    return ways.get(bound.clock, lambda: series.ratio(bound.of, bound.clock))()


def record(series: Iterable[Series], held: Iterable[Held], rounds: int) -> dict[str, Any]:
    """The content of a benchmark's file: all that was measured, and what it was measured on."""
    return {
        "schema": 1,
        "finished": now(),
        "rounds": rounds,
        "machine": machine(),
        "cases": [each.to_dict() for each in series],
        "bounds": [
            {**vars(each.bound), "measured": each.measured, "kept": each.kept} for each in held
        ],
    }


def machine() -> dict[str, Any]:
    """The versions, the sizes and the GPU that benchmark figures depend on; no machine's name."""
    import torch

    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        **{package: _version(package) for package in PACKAGES},
    }


def _version(package: str) -> str | None:
    """The installed version of a package that figures depend on."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
