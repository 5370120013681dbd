"""How results count: the sign of each word, what a case says of a clause, and all by impact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from conformance.judge.changes import (
    ADDED,
    CHANGED,
    FIXED,
    NOT_JUDGED,
    REGRESSED,
    REMOVED,
    UNCHANGED,
    Change,
)
from conformance.results.impacts import counted, of_kind, rank
from conformance.results.records import (
    AGREE,
    DIVERGE,
    ERROR,
    KNOWN,
    SKIP,
    Divergence,
    KnownDeviation,
    Result,
)
from conformance.spec import clauses

# A sign beside each word, so that colour is never the only carrier.
SYMBOLS = {
    AGREE: "✓",
    KNOWN: "≈",
    DIVERGE: "✗",
    ERROR: "!",
    SKIP: "–",
    REGRESSED: "▼",
    CHANGED: "≠",
    FIXED: "▲",
    NOT_JUDGED: "?",
    ADDED: "⊕",
    REMOVED: "⊖",
    UNCHANGED: "=",
}

# What an exit code says of a run, and the colour that goes with it.
ENDINGS = {
    0: ("as expected", "good"),
    1: ("something is not as expected", "bad"),
    2: ("a verdict could not be reached", "bad"),
    3: ("a known deviation is stale", "warn"),
}

# The worst first.
ORDER = (ERROR, DIVERGE, KNOWN, SKIP, AGREE)


def broken(result: Result | Change) -> set[str]:
    """The clauses that a result's or change's divergences break."""
    return {divergence.clause for divergence in result.divergences}


def concerned(result: Result) -> list[str]:
    """The clauses that a case cites or breaks."""
    return [*result.clauses, *sorted(broken(result) - set(result.clauses))]


def status_of(clause: str, result: Result) -> str:
    """What the case says of the clause, as a tally counts it: against those it breaks."""
    if result.status in (DIVERGE, KNOWN) and clause not in broken(result):
        return AGREE
    return result.status


def impact_of(divergence: Divergence) -> str:
    """A divergence's impact; the default of its kind where it was never classified."""
    return divergence.impact or of_kind(divergence.kind)


def by_impact(results: Sequence[Result]) -> list[str]:
    """The tally by impact: `219 known: 41 can give a wrong model, …`; first the unexpected."""
    lines = []
    for status in (DIVERGE, KNOWN):
        found = [result for result in results if result.status == status]
        told = counted(result.impact for result in found)
        if told:
            lines.append(f"{len(found)} {status}: {told}")
    return lines


@dataclass(frozen=True)
class Breach:
    """A clause that some cases break, with one impact.

    Attributes:
        impact, clause: which.
        cases: the ids of the cases that break it so, and their status.
        deviations: the ids of the known deviations that account for it.
    """

    impact: str
    clause: str
    cases: dict[str, str]
    deviations: list[str]


def breaches(results: Sequence[Result]) -> list[Breach]:
    """The tally of broken clauses: the gravest impact first, then in the specification's order."""
    found: dict[tuple[str, str], Breach] = {}
    for result in results:
        for each in result.divergences if result.status in (DIVERGE, KNOWN) else ():
            key = (impact_of(each), each.clause)
            breach = found.setdefault(key, Breach(*key, {}, []))
            breach.cases[result.case] = result.status
            names = [each.deviation] if each.deviation else [d.id for d in result.deviations]
            breach.deviations.extend(name for name in names if name not in breach.deviations)
    place = {clause: number for number, clause in enumerate(clauses())}
    return sorted(
        found.values(), key=lambda each: (rank(each.impact), place.get(each.clause, len(place)))
    )


@dataclass(frozen=True)
class Met:
    """A known deviation as a run met it; or, without one, what it found and nothing accounts for.

    Attributes:
        impact: its own; in an old report that of the case.
        deviation: None for what is unexpected.
        cases: the ids of the cases.
    """

    impact: str
    deviation: KnownDeviation | None
    cases: list[str]


def met(results: Sequence[Result]) -> list[Met]:
    """The tally of what a run met, gravest impact first; in it the unexpected before the known."""
    found: dict[tuple[str, str], Met] = {}
    for result in results:
        seen: Sequence[KnownDeviation | None] = result.deviations
        if result.status == DIVERGE:
            seen = (None,)
        for each in seen:
            impact = (each.impact if each else "") or result.impact or of_kind("")
            key = (impact, each.id if each else "")
            found.setdefault(key, Met(impact, each, [])).cases.append(result.case)
    return sorted(
        found.values(),
        key=lambda each: (rank(each.impact), each.deviation is not None, -len(each.cases)),
    )
