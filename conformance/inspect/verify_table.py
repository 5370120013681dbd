"""What `conformance verify` shows: environments, a row a kind of difference, the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from conformance.judge.changes import UNCHANGED, Change
from conformance.report.console import console
from conformance.report.explanation import shown
from conformance.report.tables.change_table import environment_table
from conformance.results.name_patterns import grouped
from conformance.results.records import Divergence
from conformance.results.text import plain

WIDEST = 48
MOST_ROWS = 24

# Differences of these kinds have a value of their own in each place: a row says how many there are.
COUNTED = ("values", "output")


def show_verified(
    found: Change, versions: Mapping[str, Mapping[str, str | None]], moved: Sequence[str]
) -> None:
    """Print what `verify` found: environments, differences from the record, the verdict.

    Args:
        found: what changed since the record.
        versions: the packages of both.
        moved: files that are not those of the record.
    """
    screen = console()
    screen.print(environment_table(versions), "")
    if found.divergences:
        screen.print(difference_table(found.divergences), "")
    for line in _notes_below(found, moved):
        screen.print(Text(plain(line)), soft_wrap=True)


def difference_table(divergences: Sequence[Divergence]) -> Table:
    """A row for each difference from the recorded load, with the places that show it."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("what", "where", "recorded", "now"):
        table.add_column(name, no_wrap=name == "what")
    rows = _rows_to_show(divergences)
    for (kind, before, after), places in rows[:MOST_ROWS]:
        names = grouped(places)
        where = names[0] + (f" and {len(places) - 1} more" if len(places) > 1 else "")
        table.add_row(*(Text(plain(each)) for each in (kind, where, before, after)))
    if len(rows) > MOST_ROWS:
        table.add_row("", f"and {len(rows) - MOST_ROWS} rows more")
    return table


def _rows_to_show(
    divergences: Sequence[Divergence],
) -> list[tuple[tuple[str, str, str], list[str]]]:
    """Differences from the recorded load; values differ wherever the dtype does, told once."""
    cast = {d.where for d in divergences if d.kind == "dtype"}
    rows: dict[tuple[str, str, str], list[str]] = {}
    for d in divergences:
        if d.kind == "values" and d.where in cast:
            continue
        before, after = (plain(shown(value), WIDEST) for value in (d.expected, d.actual))
        if d.kind in COUNTED:
            before, after = "", d.detail or "other bits"
        rows.setdefault((d.kind, before, after), []).append(d.where)
    return list(rows.items())


def _notes_below(found: Change, moved: Sequence[str]) -> list[str]:
    """The lines below the table of `verify`: files, tolerance, the verdict."""
    lines = [f"the checkpoint's files are not those recorded: {', '.join(moved)}"] if moved else []
    if found.moved:
        lines.append(f"within the tolerance: {found.moved}")
    if found.defaults:
        lines.append(f"{len(found.defaults)} fields or buffers that only one release has")
    count = len(found.divergences)
    verdict = "the same" if found.change == UNCHANGED else f"different in {count} places"
    return [
        *lines,
        f"{found.case}: {verdict} as recorded" if not count else f"{found.case}: {verdict}",
    ]
