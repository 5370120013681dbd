"""What the page's detail panel reads: plain data, each text once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from conformance.judge.changes import Change
from conformance.report.differences import Alike, alike
from conformance.report.sheet import Column, cases, clauses_of
from conformance.report.tables.change_table import costs
from conformance.report.tally import SYMBOLS
from conformance.results.impacts import IMPACTS
from conformance.results.records import Divergence, KnownDeviation, Result
from conformance.results.text import plain
from conformance.spec import clauses


def details(sheet: list[Column]) -> dict[str, Any]:
    """The detail panel's data: every case, with the clauses and deviations that they name."""
    kept = _Kept()
    found = {plain(case): _case_details(case, sheet, kept) for case in cases(sheet)}
    cited = {clause for case in cases(sheet) for clause in clauses_of(case, sheet)}
    return {
        "symbols": SYMBOLS,
        "columns": {column.key: plain(column.name) for column in sheet},
        "clauses": {
            clause.id: [clause.level, clause.title, clause.statement, clause.source]
            for clause in clauses().values()
            if clause.id in cited
        },
        "impacts": {name: impact.meaning for name, impact in IMPACTS.items()},
        "deviations": kept.deviations,
        "found": kept.items,
        "cases": found,
    }


class _Kept:
    """Things that many cases share, each once; a case names them by number."""

    def __init__(self) -> None:
        self.items: list[list[Any]] = []
        self.deviations: list[list[str]] = []
        self._number: dict[Alike | KnownDeviation, int] = {}

    def deviation(self, each: KnownDeviation) -> int:
        """The deviation's number in the panel's data. Two releases may give one two reasons."""
        if each not in self._number:
            self._number[each] = len(self.deviations)
            words = (each.id, each.clause, each.impact, each.reason, each.upstream)
            self.deviations.append([plain(word) for word in words])
        return self._number[each]

    def numbers(self, divergences: Iterable[Divergence]) -> list[int]:
        """The numbers of the divergences in the panel's data."""
        return [self._number_of(each) for each in alike(divergences)]

    def _number_of(self, found: Alike) -> int:
        """The number of divergences alike in the panel's data, where they are kept once."""
        if found not in self._number:
            self._number[found] = len(self.items)
            values = [found.expected, found.actual, found.detail]
            counts = [found.count, int(found.first)]
            self.items.append([found.clause, found.kind, list(found.names), *values, *counts])
        return self._number[found]


def _case_details(case: str, sheet: list[Column], kept: _Kept) -> dict[str, Any]:
    """What the detail panel reads of a case."""
    entries = {column.key: column.entries[case] for column in sheet if case in column.entries}
    reruns = [plain(entry.rerun) for entry in entries.values()]
    said = {
        plain(clause): [token for column in sheet for token in column.tokens_of(case, clause)]
        for clause in clauses_of(case, sheet)
    }
    return {
        "says": said,
        "rerun": reruns[0],
        "in": {key: _entry_details(entry, kept) for key, entry in entries.items()},
    }


def _entry_details(entry: Result | Change, kept: _Kept) -> dict[str, Any]:
    """A result or a change in the detail panel's data; what is empty is left out."""
    fields: dict[str, Any] = {"impact": plain(entry.impact or "")}
    fields["deviations"] = [kept.deviation(each) for each in entry.deviations]
    if isinstance(entry, Result):
        of_deviation = bool(entry.deviations)  # whose reasons the panel shows by themselves
        fields |= {"word": entry.status, "reason": "" if of_deviation else plain(entry.reason)}
        fields |= {"seconds": entry.seconds}
    else:
        fields |= {"word": entry.change, "reason": plain(entry.reason)}
        fields |= {"accepted": plain(entry.accepted), "moved": plain(entry.moved)}
        fields |= {"costs": list(costs(entry)) if entry.case.startswith("own/") else []}
        fields |= {"defaults": len(entry.defaults)}
    fields["found"] = kept.numbers(entry.divergences)
    return {name: value for name, value in fields.items() if value}
