"""What the sweep of the pinned ring shows: GB a second by threads, slots and bytes of a slot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from conformance.bench.ring_sweep import Sweep
from conformance.report.console import console

MIB = 2**20


def show(found: Sweep, kept: Path) -> None:
    """Show the sweep of the pinned ring: its table, the limits, the best setting."""
    screen = console()
    screen.print(_rates_table(found))
    for name, seconds in found.limits.items():
        screen.print(Text(f"{name}: {_gb_a_second(found, seconds)} GB/s"))
    best = found.best
    words = f"{best.lanes} threads × {best.slots} slots × {best.size / MIB:g} MiB"
    share = found.rate(found.rings[best]) / found.limit
    screen.print(Text(f"best: {words}, {share:.0%} of the lowest limit"))
    screen.print(Text(str(kept)))


def _rates_table(found: Sweep) -> Table:
    """A row for threads and slots of the pinned ring, a column for the size of a slot."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("GB/s, threads × slots", no_wrap=True)
    sizes = sorted({setting.size for setting in found.rings})
    for size in sizes:
        table.add_column(f"{size / MIB:g} MiB", justify="right")
    rows: dict[tuple[int, int], dict[int, str]] = {}
    for setting, seconds in found.rings.items():
        row = rows.setdefault((setting.lanes, setting.slots), {})
        row[setting.size] = _gb_a_second(found, seconds)
    for (lanes, slots), row in rows.items():
        table.add_row(f"{lanes} × {slots}", *(row.get(size, "") for size in sizes))
    return table


def _gb_a_second(found: Sweep, seconds: Sequence[float]) -> str:
    """The rate of a pinned ring as its table shows it."""
    return f"{found.rate(seconds) / 1e9:.2f}"
