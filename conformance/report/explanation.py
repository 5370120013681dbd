"""A result that needs attention, as text: the clause, what the load left, how to rerun it."""

from __future__ import annotations

from conformance.results.records import Divergence, Result
from conformance.results.text import plain
from conformance.spec import clauses

MOST = 6
WIDEST = 400


def explanation(result: Result) -> list[str]:
    """The lines that explain a result, most important first: clause, values, how to rerun it."""
    lines = [plain(f"{result.case}: {', '.join(filter(None, (result.status, result.impact)))}")]
    if result.reason:
        lines.append(f"  {plain(result.reason, WIDEST)}")
    for clause in dict.fromkeys(divergence.clause for divergence in result.divergences):
        lines += _clause_lines(clause, [d for d in result.divergences if d.clause == clause])
    return [*lines, f"  rerun: {plain(result.rerun)}"]


def _clause_lines(identifier: str, divergences: list[Divergence]) -> list[str]:
    """The lines that explain a broken clause."""
    clause = clauses().get(identifier)  # an old report may name a clause that was removed
    lines = [
        f"  {clause.id} ({clause.level}): {clause.statement}"
        if clause
        else f"  {plain(identifier)}"
    ]
    for divergence in divergences[:MOST]:
        lines += _divergence_lines(divergence)
    if len(divergences) > MOST:
        lines.append(f"    and {len(divergences) - MOST} more")
    return lines


def _divergence_lines(divergence: Divergence) -> list[str]:
    """The lines that explain a divergence."""
    lines = [
        f"    {divergence.kind} of {plain(divergence.where)}",
        f"      expected  {plain(shown(divergence.expected), WIDEST)}",
        f"      actual    {plain(shown(divergence.actual), WIDEST)}",
    ]
    if divergence.detail:
        lines.append(f"      {plain(divergence.detail, WIDEST)}")
    return lines


def shown(value: object) -> str:
    """An expected or actual value in an explanation; of a tensor's facts, what says most."""
    if isinstance(value, dict) and "fingerprint" in value:
        return f"{value['dtype']} {value['shape']} {value['fingerprint']}"
    return str(value) or "''"
