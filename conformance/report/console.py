"""What `check` shows: what is broken, by impact; what is unexpected, in full; how it ended."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TypeVar

import rich.progress
from rich.console import Console
from rich.progress import BarColumn, TextColumn, track
from rich.table import Table
from rich.text import Text

from conformance.report.explanation import explanation
from conformance.report.tally import (
    ORDER,
    Breach,
    breaches,
    by_impact,
    concerned,
    status_of,
)
from conformance.results.impacts import IMPACTS
from conformance.results.records import AGREE, DIVERGE, ERROR, KNOWN, SKIP, Result
from conformance.results.text import plain
from conformance.spec import STAGES, Clause, clauses

T = TypeVar("T")

# The width if the output is piped, and of the widest table.
WIDTH = 110
# Seconds after which a log gets a line.
SILENCE = 10.0

# Clauses that no divergence breaks, by what their cases say.
RESTS: dict[str, Callable[[set[str]], bool]] = {
    "no verdict": lambda said: ERROR in said,
    "skipped": lambda said: said == {SKIP},
    AGREE: lambda said: ERROR not in said and said != {SKIP},
}

STYLES = {AGREE: "green", KNOWN: "yellow", DIVERGE: "bold red", ERROR: "bold red", SKIP: "dim"}


def console(stderr: bool = False) -> Console:
    """The terminal; if the output is piped, as wide as `COLUMNS` says, or else of a fixed width."""
    stream = sys.stderr if stderr else sys.stdout
    fixed = not stream.isatty() and not os.environ.get("COLUMNS")
    width = WIDTH if fixed else shutil.get_terminal_size((WIDTH, 24)).columns
    return Console(stderr=stderr, width=width, highlight=False)


def progress(items: Iterable[T], total: int) -> Iterator[T]:
    """A progress bar on stderr while the items come; in a log, a line every ten seconds."""
    screen = console(stderr=True)
    if screen.is_terminal:
        yield from track(items, "Judging", total, console=screen, transient=True)
        return
    done = 0
    with _logged(lambda: [f"judged {done} of {total}"]):
        for item in items:
            yield item
            done += 1


@contextmanager
def _logged(lines: Callable[[], Iterable[str]]) -> Iterator[None]:
    """Write the lines to stderr every ten seconds while the block runs: a log that stands still
    looks like a process that hangs."""
    ended = threading.Event()

    def write() -> None:
        while not ended.wait(SILENCE):
            for line in lines():
                print(line, file=sys.stderr, flush=True)

    writer = threading.Thread(target=write, name="progress", daemon=True)
    writer.start()
    try:
        yield
    finally:
        ended.set()
        writer.join()


class Progress:
    """A bar for each target on stderr; in a log, a line for each every ten seconds."""

    def __init__(self, bars: rich.progress.Progress) -> None:
        self._bars = bars

    def lines(self) -> list[str]:
        """Where each target is, for a log."""
        return [
            f"{task.description}: {task.completed:.0f} of {task.total:.0f}"
            + (f", {task.fields['step']}" if task.fields["step"] else "")
            for task in self._bars.tasks
        ]

    def tell(self, text: str) -> None:
        """Print on the terminal what takes long and has no steps."""
        self._bars.console.print(Text(plain(text)))

    def task(self, name: str, total: int) -> Callable[[str], None]:
        """A progress bar of `total` steps; call the result with each step's name as it begins."""
        task = self._bars.add_task(plain(name), total=total, step="")
        begun = -1

        def advance(step: str) -> None:
            nonlocal begun
            begun += 1
            self._bars.update(task, completed=begun, step=plain(step, 40))

        return advance


@contextmanager
def watching() -> Iterator[Progress]:
    """Progress bars on the terminal while the block runs, or lines in a log."""
    screen = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[step]}"))
    bars = rich.progress.Progress(
        *columns, console=screen, transient=True, disable=not screen.is_terminal
    )
    shown = Progress(bars)
    with bars, nullcontext() if screen.is_terminal else _logged(shown.lines):
        yield shown


def show(results: Sequence[Result], stale: Sequence[str], foot: Sequence[str]) -> None:
    """Show what `check` found: broken clauses, unexpected results, stale deviations, the end."""
    screen = console()
    for title, table in sections(results, min(screen.width, WIDTH)):
        screen.print(Text(title, style="bold"), table, "", sep="\n")
    for result in results:
        if result.status in (DIVERGE, ERROR):
            screen.print(Text("\n".join(explanation(result)) + "\n"), soft_wrap=True)
    skipped = [
        plain(f"{result.case}: skipped, {result.reason}")
        for result in results
        if result.status == SKIP
    ]
    complaints = [f"stale deviation: {line}" for line in stale]
    for line in [*skipped, *complaints, *foot, *by_impact(results)]:
        screen.print(Text(line), soft_wrap=True)


def sections(results: Sequence[Result], width: int) -> Iterator[tuple[str, Table]]:
    """What `check` shows: the clauses that are broken, by impact; then the others, by stage."""
    found = breaches(results)
    for impact, about in IMPACTS.items():
        held = [each for each in found if each.impact == impact]
        if held:
            yield f"{impact}: {about.meaning}", _broken_table(held, width)
    done = {each.clause for each in found}
    others = {
        c: cited for c in clauses().values() if c.id not in done and (cited := _said(c, results))
    }
    whole = any(result.status == AGREE for result in results)  # --impact leaves agreement out
    for title, says in RESTS.items():
        if title == AGREE and not whole:
            continue
        rest = [clause for clause, said in others.items() if says(said)]
        if rest:
            yield title, _stage_table(rest, width)


def _said(clause: Clause, results: Sequence[Result]) -> set[str]:
    """What the cases that cite the clause say of it."""
    return {status_of(clause.id, result) for result in results if clause.id in concerned(result)}


def _broken_table(held: Sequence[Breach], width: int) -> Table:
    """The table of broken clauses; below a title the ids of known deviations, none of them cut."""
    table = Table(box=None, show_header=False, pad_edge=False, width=width)
    table.add_column(no_wrap=True, width=6)
    table.add_column(no_wrap=True, width=8)
    table.add_column(ratio=1)
    table.add_column(no_wrap=True, justify="right")
    for each in held:
        clause = clauses().get(each.clause)
        count = Counter(each.cases.values())
        told = [f"{count[status]} {status}" for status in ORDER if count[status]]
        title = Text(clause.title if clause else "")
        title.append("".join(f"\n{plain(name)}" for name in each.deviations), style="dim")
        style = STYLES[DIVERGE if count[DIVERGE] else KNOWN]
        table.add_row(
            plain(each.clause), clause.level if clause else "", title, Text(", ".join(told), style)
        )
    return table


def _stage_table(held: Sequence[Clause], width: int) -> Table:
    """The table of clauses that nothing breaks: a row a stage."""
    table = Table(box=None, show_header=False, pad_edge=False, width=width)
    table.add_column(no_wrap=True, width=6)
    table.add_column(ratio=1)
    for stage, about in STAGES.items():
        ids = [clause.id for clause in held if clause.stage == stage]
        if ids:
            table.add_row(stage, Text(f"{about}: ").append(" ".join(ids), style="dim"))
    return table


def summary(results: Sequence[Result]) -> str:
    """The summary of a run of `check`: `143 cases: 118 agree, 25 known`."""
    count = Counter(result.status for result in results)
    told = ", ".join(f"{count[status]} {status}" for status in reversed(ORDER) if count[status])
    return f"{len(results)} cases: {told or 'none'}"
