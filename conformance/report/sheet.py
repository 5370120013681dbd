"""A report as a sheet: a row a case, a column a target and a step from one target to the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from conformance.judge.changes import (
    CHANGED,
    CHANGES,
    FIXED,
    NOT_JUDGED,
    REGRESSED,
    UNCHANGED,
    Change,
)
from conformance.report.stored_run import Report
from conformance.report.tables.change_table import told_by
from conformance.report.tally import ORDER, concerned, status_of
from conformance.results.impacts import IMPACTS, gravest, rank
from conformance.results.records import DIVERGE, ERROR, Result

ACCEPTED = "accepted"


@dataclass(frozen=True)
class Column:
    """What one target, or one step, makes of the cases.

    Attributes:
        key: short, and no other column's.
        name: of the target or of both.
        words: what a case can be in it, the worst first.
        entries: case to what became of it.
    """

    key: str
    name: str
    words: tuple[str, ...]
    entries: dict[str, Result | Change]

    @property
    def is_step(self) -> bool:
        """Whether the sheet's column is of a step between two targets."""
        return self.words == CHANGES

    @cached_property
    def said(self) -> dict[str, dict[str, list[str]]]:
        """Of a sheet's column: case to clause to what it says of it."""
        return {case: by_clause(entry) for case, entry in self.entries.items()}

    def token(self, word: str) -> str:
        """The word as a token of this column of the sheet, without spaces."""
        return f"{self.key}={word.replace(' ', '-')}"

    def counts(self) -> list[tuple[str, int]]:
        """Of a sheet's column: word to how many cases are so, where some are; the worst first."""
        count = Counter(word_of(entry) for entry in self.entries.values())
        return [(word, count[word]) for word in self.words if count[word]]

    @property
    def accepted(self) -> int:
        """How many changes in the sheet's column are accepted."""
        return sum(isinstance(e, Change) and bool(e.accepted) for e in self.entries.values())

    def impacts(self) -> list[tuple[str, int]]:
        """Of a sheet's column: impact to the number of cases of which it is the gravest, if any."""
        count = Counter(entry.impact for entry in self.entries.values())
        return [(impact, count[impact]) for impact in IMPACTS if count[impact]]

    def counts_of(self, clause: str) -> list[tuple[str, int]]:
        """Of a sheet's column: word to how many cases say so of one clause."""
        count = Counter(word for said in self.said.values() for word in said.get(clause, ()))
        return [(word, count[word]) for word in self.words if count[word]]

    def tokens(self, case: str) -> Iterator[str]:
        """What the case is in this column of the sheet, as tokens."""
        entry = self.entries.get(case)
        if entry is not None:
            yield self.token(word_of(entry))
            if isinstance(entry, Change) and entry.accepted:
                yield self.token(ACCEPTED)
            if entry.impact in IMPACTS:
                yield self.token(entry.impact)

    def tokens_of(self, case: str, clause: str) -> Iterator[str]:
        """What the case says of the clause in this column of the sheet, as tokens."""
        yield from map(self.token, self.said.get(case, {}).get(clause, ()))


def columns(report: Report) -> list[Column]:
    """The sheet of a report: the steps first, for they are what one asks for."""
    names = [f"{before} → {after}" for before, after in pairwise(report.targets)]
    steps = [
        Column(f"c{number}", name, CHANGES, {change.case: change for change in step})
        for number, (name, step) in enumerate(zip(names, report.steps, strict=False))
    ]
    runs = [
        Column(f"s{number}", name, ORDER, {result.case: result for result in run})
        for number, (name, run) in enumerate(zip(report.targets, report.runs, strict=False))
    ]
    return [*steps, *runs]


def cases(sheet: list[Column]) -> list[str]:
    """Every case of any column of the sheet, in the order of the catalogue."""
    return list(dict.fromkeys(case for column in reversed(sheet) for case in column.entries))


def impact_of_case(case: str, sheet: list[Column]) -> str | None:
    """The gravest impact that the case has in any column of the sheet."""
    entries = (column.entries.get(case) for column in sheet)
    return gravest(entry.impact for entry in entries if entry is not None and entry.impact)


def by_gravity(sheet: list[Column]) -> list[str]:
    """Every case of the sheet: those without a verdict, then by impact, unexpected before known."""

    def key(case: str) -> tuple[bool, int, bool]:
        words = {word_of(each.entries[case]) for each in sheet if case in each.entries}
        settled = not words & {ERROR, NOT_JUDGED}
        return settled, rank(impact_of_case(case, sheet)), not words & {DIVERGE, REGRESSED}

    return sorted(cases(sheet), key=key)


def clauses_of(case: str, sheet: list[Column]) -> list[str]:
    """The clauses that the case says something of, in any column of the sheet."""
    return list(dict.fromkeys(clause for each in sheet for clause in each.said.get(case, ())))


def word_of(entry: Result | Change) -> str:
    """The word of an entry of the sheet: the status of a result, the kind of a change."""
    return entry.status if isinstance(entry, Result) else entry.change


def by_clause(entry: Result | Change) -> dict[str, list[str]]:
    """An entry of the sheet by clause: what one case says of each."""
    if isinstance(entry, Result):
        return {clause: [status_of(clause, entry)] for clause in concerned(entry)}
    told: dict[str, list[str]] = {}
    for (kind, clause), _ in told_by(entry):
        told.setdefault(clause, []).append(kind)
    if entry.change not in (REGRESSED, CHANGED, FIXED) or not told:
        return {clause: [entry.change] for clause in entry.clauses}
    return {
        clause: told.get(clause, [UNCHANGED]) for clause in {**dict.fromkeys(entry.clauses), **told}
    }
