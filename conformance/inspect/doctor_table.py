"""The findings about a folder, as a table and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from conformance.inspect.doctor import ERROR, NOTE, SEVERITIES, WARNING, Examined, Finding
from conformance.report.console import console
from conformance.results.name_patterns import grouped
from conformance.results.text import plain

STYLES = {ERROR: "bold red", WARNING: "yellow", NOTE: "dim"}

# Keys of one row, and characters of one text, before the rest is counted.
MOST_KEYS, MOST_TEXT = 6, 400


@contextmanager
def bar(total: int) -> Iterator[Callable[[int], object]]:
    """A bar of bytes on a terminal, nothing in a log."""
    with tqdm(
        total=total, unit="B", unit_scale=True, desc="Examining", leave=False, disable=None
    ) as shown:
        yield shown.update


def show(examined: Examined) -> None:
    """A row for all findings of one kind in one file, the worst first; then a line that sums up."""
    screen = console()
    if examined.findings:
        screen.print(table(examined))
    screen.print(Text(summary(examined)), soft_wrap=True)


def table(examined: Examined) -> Table:
    """The findings; those that differ in their key only are one row."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("severity", no_wrap=True)
    shown.add_column("finding", no_wrap=True)
    shown.add_column("where", overflow="fold", ratio=2)
    shown.add_column("what, and what to do", overflow="fold", ratio=3)
    for findings in _together(examined):
        first = findings[0]
        text = f"{first.told} {first.hint}".strip()
        more = f" (and {len(findings) - 1} like it)" if len(findings) > 1 else ""
        shown.add_row(
            Text(first.severity, style=STYLES[first.severity]),
            first.kind,
            Text("\n".join(_where(findings))),
            Text(plain(text, MOST_TEXT) + more),
        )
    return shown


def _together(examined: Examined) -> list[list[Finding]]:
    groups: dict[tuple[str, str, str, bool], list[Finding]] = {}
    for finding in examined.findings:
        alike = (finding.severity, finding.kind, finding.file, finding.key is not None)
        groups.setdefault(alike, []).append(finding)
    return list(groups.values())


def _where(findings: list[Finding]) -> list[str]:
    names = [finding.key for finding in findings if finding.key is not None]
    keys = grouped(plain(name, 120) or '""' for name in names)
    more = [f"and {len(keys) - MOST_KEYS} more"] if len(keys) > MOST_KEYS else []
    file = [plain(findings[0].file, 120)] if findings[0].file else []
    return [*file, *keys[:MOST_KEYS], *more] or ["(the folder)"]


def summary(examined: Examined) -> str:
    """`model: 2 errors, 1 note; 3 files, 291 tensors, 2,200,119,296 bytes`."""
    count = Counter(finding.severity for finding in examined.findings)
    told = [f"{count[each]} {each}{'s'[: count[each] != 1]}" for each in SEVERITIES if count[each]]
    read = f"{examined.files} files, {examined.tensors} tensors, {examined.nbytes:,} bytes"
    return f"{plain(examined.folder)}: {', '.join(told) or 'no problems found'}; {read}"


def as_json(examined: Examined) -> str:
    """Every finding by itself."""
    content = {
        "folder": str(examined.folder),
        "files": examined.files,
        "tensors": examined.tensors,
        "bytes": examined.nbytes,
        "findings": [asdict(finding) for finding in examined.findings],
        "exit_code": examined.exit_code,
    }
    return json.dumps(content, indent=2)
