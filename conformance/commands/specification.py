"""The clauses as text and as `docs/spec.md`."""

from __future__ import annotations

from collections.abc import Iterable

from conformance.cases.catalogue import CASES
from conformance.deviations import deviations
from conformance.spec import STAGES, Clause, clauses


def as_text(clause: Clause) -> str:
    """One clause with its cases and known deviations, for the terminal."""
    lines = [
        f"{clause.id} ({clause.level})  {clause.title}",
        f"  {clause.statement}",
        f"  source: {clause.source}",
        f"  cases: {', '.join(_cases(clause))}",
    ]
    for deviation in deviations():
        if deviation.clause == clause.id:
            lines.append(
                f"  known deviation {deviation.id} ({deviation.releases}): {deviation.reason}"
            )
    return "\n".join(lines)


def as_markdown() -> str:
    """All clauses as one page, rendered by `make docs`."""
    lines = [
        "# The specification of `from_pretrained`",
        "",
        "Rendered by `make docs` from `conformance/spec/*.toml`; do not edit. Level `must`: "
        "documentation or plain correctness says so; `should`: recommended; `observed`: stock "
        "merely does it. `conformance spec ID` shows one clause, `conformance check --clause ID` "
        "runs its cases.",
    ]
    for stage, about in STAGES.items():
        lines += ["", f"## {stage}: {about}"]
        for clause in clauses().values():
            if clause.stage == stage:
                lines += ["", *_clause_lines(clause)]
    return "\n".join(lines) + "\n"


def _clause_lines(clause: Clause) -> Iterable[str]:
    yield f"### {clause.id} {clause.title}"
    yield ""
    yield f"*{clause.level}.* {clause.statement}"
    yield ""
    yield f"Source: {clause.source}. Cases: {', '.join(f'`{name}`' for name in _cases(clause))}."
    for deviation in deviations():
        if deviation.clause == clause.id:
            yield ""
            yield (
                f"Known deviation `{deviation.id}` (transformers {deviation.releases}): "
                f"{deviation.reason} Upstream: {deviation.upstream}."
            )


def _cases(clause: Clause) -> list[str]:
    return [case.id for case in CASES if clause.id in case.clauses]
