"""What `conformance explain` shows beside the plan: bytes by device and dtype, peaks, what fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from conformance.report.console import console
from conformance.results.text import plain

if TYPE_CHECKING:
    from conformance.inspect.footprint import Explanation


def show(explanation: Explanation) -> None:
    """Show a plan's footprint in two tables, and what to change if something does not fit."""
    screen = console()
    screen.print()
    screen.print(_parts_table(explanation))
    screen.print()
    screen.print(_peaks_table(explanation))
    if explanation.advice:
        screen.print(Text("\nThe model does not fit. To make it fit:", style="bold"))
        for line in explanation.advice:
            screen.print(Text(f"  {plain(line)}"))


def _parts_table(explanation: Explanation) -> Table:
    """A plan's footprint as a table: a row a device, dtype and action."""

    from conformance.inspect.footprint import size

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("device", "stored", "in the model", "action"):
        table.add_column(head)
    for head in ("tensors", "parameters", "on disk", "in memory"):
        table.add_column(head, justify="right")
    for part in explanation.parts:
        counts = f"{part.tensors:,}", f"{part.parameters:,}"
        sizes = size(part.on_disk), size(part.in_memory)
        table.add_row(part.device, part.stored or "–", part.dtype, part.action, *counts, *sizes)
    return table


def _peaks_table(explanation: Explanation) -> Table:
    """The peaks of a planned load as a table: a row a device, with its budget."""

    from conformance.inspect.footprint import size

    fits = {fit.device: fit for fit in explanation.fits}
    peaks = explanation.peaks
    needs = {**peaks.devices, "cpu": peaks.host}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("peak of the load")
    for head in ("needs", "of it mapped files", "budget", ""):
        table.add_column(head, justify="right")
    for device in dict.fromkeys((*needs, *fits)):
        fit = fits.get(device)
        word = "" if fit is None else ("✓ fits" if fit.fits else "✗ does not fit")
        style = "" if fit is None else ("green" if fit.fits else "bold red")
        table.add_row(
            plain(device),
            size(needs.get(device, 0)),
            size(peaks.file) if device == "cpu" else "",
            "" if fit is None else size(fit.budget),
            Text(word, style=style),
        )
    return table
