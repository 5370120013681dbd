"""What `conformance bench` shows: a table a case, the bounds, and a plot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from conformance.report.console import console
from conformance.report.templating import template
from conformance.results.text import plain

if TYPE_CHECKING:
    from conformance.bench.bounds import Held
    from conformance.bench.series import Row, Series

MIB = 2**20
CLOCKS = {"first": "load", "again": "load again", "touched": "load and touch"}


def show(series: Sequence[Series], held: Sequence[Held], folder: Path) -> None:
    """Show a benchmark: its tables, the bounds, and where all of it is kept."""
    screen = console()
    for each in series:
        screen.print(Text(f"\n{each.case.id}: {each.case.title}", style="bold"))
        screen.print(case_table(each))
        if not each.equal:
            screen.print(Text("the tensors are not the same for everyone", style="bold red"))
    if held:
        screen.print(bound_table(held))
    screen.print(Text(f"\n{folder / 'bench.json'}, {folder / 'bench.svg'}"))


def case_table(series: Series) -> Table:
    """A benchmark's case as a table, a row a contender: medians, memory, ratio to stock."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    clock = CLOCKS[series.case.clock]
    table.add_column("seconds, MiB", no_wrap=True)
    heads = ("import", "first", clock, "min–max", "whole", "cpu", "anonymous", "file", "peak")
    for head in dict.fromkeys((*heads, "of stock", "of limit")):
        table.add_column(head, justify="right")
    for row in series.rows.values():
        table.add_row(plain(row.contender), *_contender_cells(series, row))
    return table


def _contender_cells(series: Series, row: Row) -> list[str]:
    """A contender's row in the table of a benchmark's case."""
    if row.lacks:
        return [f"n/a: {plain(row.lacks, 60)}"]
    case, peaks = series.case, row.memory.peaks
    spread = row.seconds(case.clock)
    ratio, share = series.ratio(row.contender, case.clock), series.share(row.contender)
    return [
        f"{row.median('imports'):.2f}",
        f"{row.median('first'):.4f}",
        *([] if CLOCKS[case.clock] == "first" else [f"{row.median(case.clock):.4f}"]),
        f"{min(spread):.4f}–{max(spread):.4f}",
        f"{row.median('whole'):.2f}",
        f"{row.median('cpu'):.2f}",
        *(f"{peaks.get(kind, 0) / MIB:.0f}" for kind in ("anonymous", "file", "total")),
        "" if ratio is None else f"{ratio:.2f}",
        "" if share is None else f"{share:.0%}",
    ]


def bound_table(held: Iterable[Held]) -> Table:
    """The table of a benchmark's bounds: what the reference must hold, and whether it did."""
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    table.add_column("the reference must hold")
    for head in ("bound", "measured", ""):
        table.add_column(head, justify="right")
    for each in held:
        sign = "≥" if each.bound.clock == "limit" else "≤"
        measured = "n/a" if each.measured is None else f"{each.measured:.2f}"
        word = {True: "✓ held", False: "✗ not held", None: "– not measured"}[each.kept]
        style = {True: "green", False: "bold red", None: "dim"}[each.kept]
        table.add_row(
            each.bound.what, f"{sign} {each.bound.most:.2f}", measured, Text(word, style=style)
        )
    return table


BAR, LABEL, LINE = 520, 190, 22  # widths and height, in the plot's units


def plot(series: Sequence[Series]) -> str:
    """A benchmark as an SVG, a bar a contender and case: seconds, from the shortest to the longest.

    A thin line is the range of all samples, a mark the limit.
    """
    return template("bench.svg.j2").render(
        panels=[_plot_panel(each) for each in series if each.measured],
        bar=BAR,
        label=LABEL,
        line=LINE,
    )


def _plot_panel(series: Series) -> dict[str, object]:
    """What the benchmark's plot shows of one case."""
    clock = series.case.clock
    longest = max(max(row.seconds(clock)) for row in series.measured)
    limit = sorted(series.limit)[len(series.limit) // 2] if series.limit else None
    return {
        "title": f"{series.case.title}: {CLOCKS[clock]}, seconds",
        "limit": None if limit is None or limit > longest else BAR * limit / longest,
        "rows": [
            {
                "name": row.contender,
                "ours": row.contender.startswith("reference"),
                "seconds": f"{row.median(clock):.4g}",
                "width": BAR * row.median(clock) / longest,
                "least": BAR * min(row.seconds(clock)) / longest,
                "most": BAR * max(row.seconds(clock)) / longest,
            }
            for row in sorted(series.measured, key=lambda row: row.median(clock))
        ],
    }
