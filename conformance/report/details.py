"""What the page's detail panel reads: plain data, each text once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from conformance.deviations import deviations
from conformance.judge.changes import Change
from conformance.report.change_table import costs
from conformance.report.differences import Alike, alike
from conformance.report.sheet import Column, cases, clauses_of
from conformance.report.tally import SYMBOLS
from conformance.results.records import Divergence, Result
from conformance.results.text import plain
from conformance.spec import clauses


def names_of(deviation: str | None) -> list[str]:
    """The ids in a result's or a change's `deviation`."""
    return [plain(name) for name in deviation.split(", ")] if deviation else []


def details(sheet: list[Column]) -> dict[str, Any]:
    """Of every case, with the clauses and deviations that they name."""
    kept = _Kept()
    found = {plain(case): _case(case, sheet, kept) for case in cases(sheet)}
    cited = {clause for case in cases(sheet) for clause in clauses_of(case, sheet)}
    named = {
        name
        for column in sheet
        for entry in column.entries.values()
        for name in names_of(entry.deviation)
    }
    return {
        "symbols": SYMBOLS,
        "columns": {column.key: plain(column.name) for column in sheet},
        "clauses": {
            clause.id: [clause.level, clause.title, clause.statement, clause.source]
            for clause in clauses().values()
            if clause.id in cited
        },
        "deviations": {
            each.id: [each.clause, each.reason, each.upstream]
            for each in deviations()
            if each.id in named
        },
        "found": kept.items,
        "cases": found,
    }


class _Kept:
    """Things that many cases share, each once; a case names them by number."""

    def __init__(self) -> None:
        self.items: list[list[Any]] = []
        self._number: dict[Alike, int] = {}

    def numbers(self, divergences: Iterable[Divergence]) -> list[int]:
        return [self._of(each) for each in alike(divergences)]

    def _of(self, found: Alike) -> int:
        if found not in self._number:
            self._number[found] = len(self.items)
            values = [found.expected, found.actual, found.detail]
            counts = [found.count, int(found.first)]
            self.items.append([found.clause, found.kind, list(found.names), *values, *counts])
        return self._number[found]


def _case(case: str, sheet: list[Column], kept: _Kept) -> dict[str, Any]:
    entries = {column.key: column.entries[case] for column in sheet if case in column.entries}
    reruns = [plain(entry.rerun) for entry in entries.values()]
    said = {
        plain(clause): [token for column in sheet for token in column.tokens_of(case, clause)]
        for clause in clauses_of(case, sheet)
    }
    return {
        "says": said,
        "rerun": reruns[0],
        "in": {key: _entry(entry, kept) for key, entry in entries.items()},
    }


def _entry(entry: Result | Change, kept: _Kept) -> dict[str, Any]:
    """A result or a change; what is empty is left out."""
    fields: dict[str, Any] = {"deviations": names_of(entry.deviation)}
    if isinstance(entry, Result):
        of_deviation = entry.deviation is not None  # whose reason the panel shows by itself
        fields |= {"word": entry.status, "reason": "" if of_deviation else plain(entry.reason)}
        fields |= {"seconds": entry.seconds}
    else:
        fields |= {"word": entry.change, "reason": plain(entry.reason)}
        fields |= {"accepted": plain(entry.accepted), "moved": plain(entry.moved)}
        fields |= {"costs": list(costs(entry)) if entry.case.startswith("own/") else []}
        fields |= {"defaults": len(entry.defaults)}
    fields["found"] = kept.numbers(entry.divergences)
    return {name: value for name, value in fields.items() if value}
