"""`conformance bench`: measure, hold the reference to its bounds, keep, show."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from conformance.bench.contenders import CONTENDERS, Contender
from conformance.bench.series import Series, take
from conformance.bench.workloads import BOUNDS, CASES, Bound, Case
from conformance.results.runs import now, run_folder, write_whole


class NothingToMeasure(ValueError):
    """No case, or no contender, of that name; or no case for this machine."""


MB = 1e6

PACKAGES = ("torch", "transformers", "safetensors", "accelerate")


@dataclass(frozen=True)
class Held:
    """A bound and what was measured; None where that could not be."""

    bound: Bound
    measured: float | None

    @property
    def kept(self) -> bool | None:
        """Whether the bound is kept; None where nothing was measured."""
        if self.measured is None:
            return None
        if self.bound.clock == "limit":
            return self.measured >= self.bound.most
        return self.measured <= self.bound.most


def bench(patterns: Sequence[str], names: Sequence[str], rounds: int, out: Path | None) -> int:
    """Measure the cases that the globs match; 1 if some tensor is not the same for everyone.

    A bound that is not kept is shown and is no failure: the machine may be busy.
    """
    from conformance.bench.tables import plot, show
    from conformance.report.console import watching

    cases, contenders = select(patterns), chosen(names)
    if not cases or not contenders:
        raise NothingToMeasure(f"nothing to measure: {[*patterns, *names]}")
    folder = run_folder(out, "bench")
    series: list[Series] = []
    held: list[Held] = []
    with watching() as progress:
        advance = progress.task("Measuring", (rounds + 1) * len(cases))
        for case in cases:  # kept one by one: a run that is cut short has measured something
            series.append(take(case, contenders, rounds, advance))
            held = hold(series)
            write_whole(folder / "bench.json", json.dumps(record(series, held, rounds), indent=1))
            write_whole(folder / "bench.svg", plot(series))
    show(series, held, folder)
    return 0 if all(each.equal for each in series) else 1


def select(patterns: Sequence[str]) -> list[Case]:
    """The cases that some glob matches, or all; without a GPU only those of the CPU."""
    import torch

    there = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    return [
        case for case in CASES if case.device in there and (not patterns or _any(case.id, patterns))
    ]


def chosen(names: Sequence[str]) -> list[Contender]:
    """The contenders that some glob matches, or all."""
    return [each for each in CONTENDERS if not names or _any(each.name, names)]


def _any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def hold(series: Iterable[Series]) -> list[Held]:
    """Every bound of the cases that were measured."""
    by_case = {each.case.id: each for each in series}
    return [
        Held(bound, _measured(bound, by_case[bound.case]))
        for bound in BOUNDS
        if bound.case in by_case
    ]


def _measured(bound: Bound, series: Series) -> float | None:
    row = series.rows.get(bound.of)
    if row is None or not row.samples:
        return None
    peaks, gpu = row.memory.peaks, row.memory.gpu
    ways: dict[str, Callable[[], float | None]] = {
        "peak": lambda: peaks["total"] / series.result,
        "anonymous": lambda: peaks["anonymous"] / MB,
        "gpu": lambda: (gpu["allocated"] - series.result) / MB,
        "limit": lambda: series.share(bound.of),
        "predicted": lambda: abs(series.predicted / peaks["total"] - 1),
    }
    return ways.get(bound.clock, lambda: series.ratio(bound.of, bound.clock))()


def record(series: Iterable[Series], held: Iterable[Held], rounds: int) -> dict[str, Any]:
    """All that was measured, with what it was measured on."""
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
    """The versions, the sizes and the GPU that figures depend on; no name of the machine."""
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
    try:
        return version(package)
    except PackageNotFoundError:
        return None
