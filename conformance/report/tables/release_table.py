"""The table of clauses and releases, as a page of Markdown and of HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from markupsafe import Markup

from conformance.report.html import script_hash
from conformance.report.tally import broken
from conformance.report.templating import template, text
from conformance.results.impacts import IMPACTS
from conformance.results.records import AGREE, DIVERGE, ERROR, KNOWN, Result
from conformance.results.text import plain
from conformance.spec import STAGES, Clause, clauses

HEADING = "Releases of transformers against the specification"
ABOUT = (
    "A cell is blank if every case of the clause agrees; otherwise it says how many cases break "
    "the clause. With ! some of them have no known deviation, or no verdict. `conformance spec ID` "
    "shows a clause with its deviations. The rows at the end count the cases by verdict and by "
    "their gravest impact."
)


@dataclass(frozen=True)
class Column:
    """One release.

    Attributes:
        release: of transformers.
        date: when it was judged, ISO 8601.
        results: of every case.
        stale: what is wrong with the list of deviations, held against these.
    """

    release: str
    date: str
    results: Sequence[Result]
    stale: Sequence[str]

    def __str__(self) -> str:
        told = ", ".join(f"{count} {status}" for status, count in self.count.items())
        return "\n".join([f"{self.release}: {told}", *(f"  stale: {each}" for each in self.stale)])

    @property
    def count(self) -> dict[str, int]:
        """A release's results: status to the number of cases, where there are some."""
        found = Counter(result.status for result in self.results)
        return {status: found[status] for status in (AGREE, KNOWN, DIVERGE, ERROR) if found[status]}

    @property
    def impacts(self) -> dict[str, int]:
        """A release's results: impact to the number of cases of which it is the gravest."""
        found = Counter(result.impact for result in self.results)
        return {impact: found[impact] for impact in IMPACTS}

    @cached_property
    def _cells_by_clause(self) -> dict[str, Cell]:
        """The cells of a release's column in the table, by clause."""
        cells = {identifier: Cell() for identifier in clauses()}
        for result in self.results:
            failed = result.clauses if result.status == ERROR else ()
            for identifier in dict.fromkeys([*failed, *sorted(broken(result))]):
                cells[identifier] = cells.get(identifier, Cell()).with_(result)
        return cells

    def cell(self, clause: str) -> Cell:
        """What the release's results make of the clause: a cell of the table."""
        return self._cells_by_clause[clause]


@dataclass(frozen=True)
class Cell:
    """A clause in a release.

    Attributes:
        cases: those that break it, or that say nothing of it because they failed.
        news: whether one of them has no known deviation, or no verdict.
    """

    cases: tuple[str, ...] = ()
    news: bool = False

    def with_(self, result: Result) -> Cell:
        """The cell of a clause in a release, with one case more."""
        return Cell((*self.cases, result.case), self.news or result.status in (DIVERGE, ERROR))

    def __str__(self) -> str:
        return (str(len(self.cases)) if self.cases else "") + ("!" if self.news else "")


def as_markdown(columns: Sequence[Column]) -> str:
    """The page `docs/releases.md`: a column a release, in the order given."""
    lines = [
        f"# {HEADING}",
        "",
        f"Rendered by `make releases` ({_dates(columns)}); do not edit. {ABOUT} The same as a page "
        "with the cases in each cell: [releases.html](releases.html).",
        "",
        "| clause | promise | cases | " + " | ".join(each.release for each in columns) + " |",
        "|---|---|---|" + "---|" * len(columns),
        *(_clause_line(clause, columns) for _, held in _clauses_by_stage() for clause in held),
        *_total_lines(columns),
    ]
    reasons = list(_reasons_of_errors(columns))
    return "\n".join([*lines, *(["", *reasons] if reasons else [])]) + "\n"


def as_html(columns: Sequence[Column]) -> str:
    """The page `docs/releases.html`, which needs nothing but itself."""
    style = Markup(text("report.css") + text("releases.css"))
    return template("releases.html.j2").render(
        style=style,
        style_hash=script_hash(style),
        heading=HEADING,
        about=ABOUT.replace("blank", "a dot").replace("`", ""),
        dates=_dates(columns),
        columns=columns,
        stages=list(_clauses_by_stage()),
        cited={clause: _cases_citing(clause, columns) for clause in clauses()},
        statuses=_statuses_seen(columns),
        impacts=IMPACTS,
        reasons=[
            reason.removeprefix("- ").replace("`", "") for reason in _reasons_of_errors(columns)
        ],
    )


def _dates(columns: Sequence[Column]) -> str:
    """On which days the releases of the table were judged."""
    dates = sorted({column.date for column in columns})
    return dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"


def _clauses_by_stage() -> Iterator[tuple[str, list[Clause]]]:
    """The clauses in the table of releases, stage by stage."""
    for stage, about in STAGES.items():
        yield f"{stage}: {about}", [each for each in clauses().values() if each.stage == stage]


def _cases_citing(clause: str, columns: Sequence[Column]) -> int:
    """How many cases of the release table cite the clause."""
    return sum(clause in result.clauses for result in columns[0].results)


def _clause_line(clause: Clause, columns: Sequence[Column]) -> str:
    """A clause's line in the release table."""
    cells = " | ".join(str(column.cell(clause.id)) for column in columns)
    return f"| {clause.id} | {clause.title} | {_cases_citing(clause.id, columns)} | {cells} |"


def _total_lines(columns: Sequence[Column]) -> Iterator[str]:
    """The last lines of the release table: cases by status and by impact."""
    for status in _statuses_seen(columns):
        counts = [column.count.get(status, 0) for column in columns]
        yield f"| | *{status}* | | " + " | ".join(map(str, counts)) + " |"
    for impact in IMPACTS:
        counts = [column.impacts[impact] for column in columns]
        yield f"| | *impact: {impact}* | | " + " | ".join(map(str, counts)) + " |"


def _statuses_seen(columns: Sequence[Column]) -> list[str]:
    """The statuses of results in the release table."""
    return list(dict.fromkeys(status for column in columns for status in column.count))


def _reasons_of_errors(columns: Sequence[Column]) -> Iterator[str]:
    """Lines below the release table: no `!` without its reason."""
    for column in columns:
        for result in column.results:
            if result.status in (ERROR, DIVERGE):
                told = result.reason or ", ".join(sorted(broken(result)))
                yield f"- {column.release}, `{plain(result.case)}`: {result.status}, {plain(told)}"
        yield from (f"- {column.release}: stale, {plain(each)}" for each in column.stale)
