"""The table of clause and release: which release keeps which promise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from conformance.records import AGREE, DIVERGE, ERROR, KNOWN, Result
from conformance.report.plain import plain
from conformance.spec import STAGES, clauses


def as_markdown(results: Mapping[str, Sequence[Result]], date: str) -> str:
    """The page `docs/releases.md`; a column a release, in the order given."""
    lines = [
        "# Releases of transformers against the specification",
        "",
        f"Rendered by `make releases` on {date}; do not edit. A cell is blank where every case of "
        "the clause agrees, else it says how many of its cases break it; `!` where a verdict could "
        "not be reached or is no known deviation. `conformance spec ID` shows a clause with its "
        "deviations.",
        "",
        "| clause | promise | cases | " + " | ".join(results) + " |",
        "|---|---|---|" + "---|" * len(results),
        *_rows(results),
        *_totals(results),
        "",
        *_reasons(results),
    ]
    return "\n".join(lines) + "\n"


def _rows(results: Mapping[str, Sequence[Result]]) -> Iterator[str]:
    for stage in STAGES:
        for clause in (each for each in clauses().values() if each.stage == stage):
            cells = [_cell(clause.id, judged) for judged in results.values()]
            cited = sum(clause.id in result.clauses for result in next(iter(results.values())))
            yield f"| {clause.id} | {clause.title} | {cited} | " + " | ".join(cells) + " |"


def _cell(clause: str, results: Sequence[Result]) -> str:
    broken = [r for r in results if any(d.clause == clause for d in r.divergences)]
    failed = any(r.status == ERROR and clause in r.clauses for r in results)
    news = failed or any(r.status == DIVERGE for r in broken)
    return (str(len(broken)) if broken else "") + ("!" if news else "")


def _totals(results: Mapping[str, Sequence[Result]]) -> Iterator[str]:
    for status in (AGREE, KNOWN, DIVERGE, ERROR):
        counts = [Counter(r.status for r in judged)[status] for judged in results.values()]
        if any(counts):
            yield f"| | *{status}* | | " + " | ".join(map(str, counts)) + " |"


def _reasons(results: Mapping[str, Sequence[Result]]) -> Iterator[str]:
    """No `!` without its reason."""
    for release, judged in results.items():
        for result in judged:
            if result.status in (ERROR, DIVERGE):
                broken = ", ".join(dict.fromkeys(d.clause for d in result.divergences))
                yield f"- {release}, `{plain(result.case)}`: {plain(result.reason or broken)}"
