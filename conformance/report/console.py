"""The table a run ends with, and the explanations under it."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import rich.progress
from rich.console import Console
from rich.progress import BarColumn, TextColumn, track
from rich.table import Table
from rich.text import Text

from conformance.report.explanation import explanation
from conformance.report.tally import ORDER, broken, concerned, status_of
from conformance.results.records import AGREE, DIVERGE, ERROR, KNOWN, SKIP, Result
from conformance.results.text import plain
from conformance.spec import STAGES, Clause, clauses

T = TypeVar("T")

STYLES = {AGREE: "green", KNOWN: "yellow", DIVERGE: "bold red", ERROR: "bold red", SKIP: "dim"}


def console(stderr: bool = False) -> Console:
    """The terminal, or a fixed width where there is none."""
    stream = sys.stderr if stderr else sys.stdout
    width = shutil.get_terminal_size().columns if stream.isatty() else 110
    return Console(stderr=stderr, width=width, highlight=False)


def progress(items: Iterable[T], total: int) -> Iterator[T]:
    """A bar on stderr while the items come; nothing where that is no terminal."""
    screen = console(stderr=True)
    yield from track(
        items, "Judging", total, console=screen, transient=True, disable=not screen.is_terminal
    )


class Progress:
    """A bar a target on stderr; nothing where that is no terminal."""

    def __init__(self, bars: rich.progress.Progress) -> None:
        self._bars = bars

    def tell(self, text: str) -> None:
        """What takes long and has no steps."""
        self._bars.console.print(Text(plain(text)))

    def task(self, name: str, total: int) -> Callable[[str], None]:
        """A bar of `total` steps; call what is returned with the name of each step as it begins."""
        task = self._bars.add_task(plain(name), total=total, step="")
        begun = -1

        def advance(step: str) -> None:
            nonlocal begun
            begun += 1
            self._bars.update(task, completed=begun, step=plain(step, 40))

        return advance


@contextmanager
def watching() -> Iterator[Progress]:
    """Bars while the block runs."""
    screen = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[step]}"))
    bars = rich.progress.Progress(
        *columns, console=screen, transient=True, disable=not screen.is_terminal
    )
    with bars:
        yield Progress(bars)


def show(results: Sequence[Result], stale: Sequence[str], foot: str) -> None:
    """Table, explanations of what is unexpected, stale deviations, foot line."""
    screen = console()
    screen.print(clause_table(results))
    for result in results:
        if result.status in (DIVERGE, ERROR):
            screen.print(Text("\n" + "\n".join(explanation(result))), soft_wrap=True)
    skipped = [
        plain(f"{result.case}: skipped, {result.reason}")
        for result in results
        if result.status == SKIP
    ]
    for line in [*skipped, *(f"stale deviation: {line}" for line in stale)]:
        screen.print(Text(line), soft_wrap=True)
    screen.print(Text(foot), soft_wrap=True)


def clause_table(results: Sequence[Result]) -> Table:
    """A row a clause that some result cites, stage by stage."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("clause", "level", "promise"):
        table.add_column(name, no_wrap=name != "promise")
    table.add_column("cases", justify="right")
    table.add_column("verdict")
    for stage, about in STAGES.items():
        rows = [(c, _citing(c, results)) for c in clauses().values() if c.stage == stage]
        if any(cited for _, cited in rows):
            table.add_row(Text(stage, style="bold cyan"), "", Text(about, style="bold cyan"))
        for clause, cited in rows:
            if cited:
                table.add_row(
                    clause.id, clause.level, clause.title, str(len(cited)), verdict(clause, cited)
                )
    return table


def _citing(clause: Clause, results: Sequence[Result]) -> list[Result]:
    return [result for result in results if clause.id in concerned(result)]


def verdict(clause: Clause, cited: Sequence[Result]) -> Text:
    """What the cases say of the clause: a case counts against the clauses it breaks."""
    count = Counter(status_of(clause.id, result) for result in cited)
    worst = next(status for status in ORDER if count[status])
    parts = [f"{count[status]} {status}" for status in ORDER if count[status]]
    text = Text(AGREE if worst == AGREE else ", ".join(parts), style=STYLES[worst])
    names = dict.fromkeys(r.deviation for r in cited if r.deviation and clause.id in broken(r))
    return text.append(f" ({', '.join(names)})", style="dim") if names else text


def summary(results: Sequence[Result]) -> str:
    """`143 cases: 118 agree, 25 known`."""
    count = Counter(result.status for result in results)
    told = ", ".join(f"{count[status]} {status}" for status in reversed(ORDER) if count[status])
    return f"{len(results)} cases: {told or 'none'}"
