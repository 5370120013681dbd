"""A report as every rendering reads it: from its file alone, and only if it is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from conformance.judge.changes import Change
from conformance.results.records import BadReport, Result, read_report

Kept = TypeVar("Kept", Result, Change)


@dataclass(frozen=True)
class Report:
    """One run of `check`, or of `compare`.

    Attributes:
        header, footer: its first and last record.
        runs: the results of each target, in the order of the targets.
        steps: the changes from each target to the next; empty for `check`.
    """

    header: dict[str, Any]
    runs: tuple[tuple[Result, ...], ...]
    steps: tuple[tuple[Change, ...], ...]
    footer: dict[str, Any]

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of a stored run's targets, as their user wrote them."""
        return tuple(self.header.get("targets") or [self.header["target"]])

    @property
    def environments(self) -> tuple[dict[str, str | None], ...]:
        """A stored run's package to version, of each target."""
        if "environments" not in self.header:
            return (self.header["versions"],)
        return tuple(self.header["environments"][target] for target in self.targets)

    @property
    def changes(self) -> list[Change]:
        """A stored run's changes, of all steps."""
        return [change for step in self.steps for change in step]


def read_whole(path: Path) -> Report:
    """Read a stored run from its file; it must be complete.

    Raises:
        OSError: it cannot be read.
        BadReport: it is not a report, was cut off, or has a record of another form.
    """
    records = read_report(path)
    try:
        results = [Result.of(each) for each in records if each["record"] == "result"]
        changes = [Change.of(each) for each in records if each["record"] == "change"]
        runs = _run_by_run(results, lambda result: result.target)
        steps = _run_by_run(changes, lambda change: (change.before, change.after))
        report = Report(records[0], runs, steps, records[-1])
        _ = report.targets, report.environments, report.footer["exit_code"]
    except (KeyError, TypeError, AttributeError) as cause:
        raise BadReport(f"{path} has a record that is not of schema 1: {cause!r}") from cause
    return report


def _run_by_run(
    items: Iterable[Kept], whose: Callable[[Kept], object]
) -> tuple[tuple[Kept, ...], ...]:
    """A stored run's lines, one run after another: a case comes once in each."""
    runs: list[dict[str, Kept]] = []
    last = None
    for item in items:
        if not runs or whose(item) != last or item.case in runs[-1]:
            runs.append({})
        runs[-1][item.case] = item
        last = whose(item)
    return tuple(tuple(run.values()) for run in runs)
