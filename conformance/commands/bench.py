"""`conformance bench`: measure seconds and memory of loading against stock and other loaders."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from conformance.bench.bounds import Held, hold, record
from conformance.bench.contenders import CONTENDERS, Contender
from conformance.bench.series import Series, take
from conformance.bench.tables import plot, show
from conformance.bench.workloads import CASES, Case
from conformance.commands.arguments.shared import UsageError
from conformance.report.console import watching
from conformance.results.runs import run_folder, write_whole


class NothingToMeasure(ValueError):
    """No case, or no contender, of that name; or no case for this machine."""


def run(options: argparse.Namespace) -> int:
    """Run `conformance bench`: measure what the arguments select; the exit code."""
    if options.rounds < 1:
        raise UsageError("--rounds: at least 1")
    try:
        return bench(options.case, options.contender, options.rounds, options.out)
    except NothingToMeasure as error:
        raise UsageError(str(error)) from error


def bench(patterns: Sequence[str], names: Sequence[str], rounds: int, out: Path | None) -> int:
    """Measure the benchmark's cases that the globs match; 1 if some tensor differs between loaders.

    A bound that is not kept is shown and is no failure: the machine may be busy.
    """
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
    """The benchmark's cases that some glob matches, or all; without a GPU only those of the CPU."""
    there = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    return [
        case
        for case in CASES
        if case.device in there and (not patterns or _matches_any(case.id, patterns))
    ]


def chosen(names: Sequence[str]) -> list[Contender]:
    """The benchmark's contenders that some glob matches, or all."""
    return [each for each in CONTENDERS if not names or _matches_any(each.name, names)]


def _matches_any(name: str, patterns: Iterable[str]) -> bool:
    """Whether a glob matches the name of a benchmark's case or contender."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
