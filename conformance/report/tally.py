"""What a case says of a clause: one rule for every rendering."""

from __future__ import annotations

from conformance.judge.changes import Change
from conformance.results.records import AGREE, DIVERGE, ERROR, KNOWN, SKIP, Result

# The worst first.
ORDER = (ERROR, DIVERGE, KNOWN, SKIP, AGREE)


def broken(result: Result | Change) -> set[str]:
    """The clauses that its divergences are laid to."""
    return {divergence.clause for divergence in result.divergences}


def concerned(result: Result) -> list[str]:
    """The clauses that a case cites or breaks."""
    return [*result.clauses, *sorted(broken(result) - set(result.clauses))]


def status_of(clause: str, result: Result) -> str:
    """What the case says of the clause: it counts against those it breaks."""
    if result.status in (DIVERGE, KNOWN) and clause not in broken(result):
        return AGREE
    return result.status
