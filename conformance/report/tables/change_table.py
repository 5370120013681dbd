"""What `conformance compare` shows: environments, a row a clause and kind of change, details."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from conformance.judge.changes import CHANGED, CHANGES, FIXED, NOT_JUDGED, REGRESSED, Change
from conformance.report.console import console
from conformance.report.explanation import shown
from conformance.report.tables.own_table import own_table
from conformance.results.impacts import counted, gravest, of_kind
from conformance.results.name_patterns import grouped
from conformance.results.records import Divergence
from conformance.results.text import plain
from conformance.spec import clauses

STYLES = {REGRESSED: "bold red", CHANGED: "yellow", FIXED: "green", NOT_JUDGED: "bold red"}

# What says most of a load that is not the same comes first.
TELLING = (
    *("accepted", "rejected", "exception", "message", "device-map", "tie", "dtype", "shape"),
    *("kind-of-tensor", "requires_grad", "device", "missing", "unexpected", "mismatched"),
    *("training", "state", "values", "output", "generation-config", "config", "stride"),
)
WIDEST = 60
MOST = 3

# As many as a first screen holds beside the environments.
HEADLINES = 16


@dataclass(frozen=True)
class Row:
    """One clause, one kind of change, and every case that shows it, with their gravest impact."""

    change: str
    clause: str
    cases: tuple[str, ...]
    example: Divergence
    where: tuple[str, ...]
    impact: str

    @property
    def what(self) -> str:
        """A change in words: `dtype of {0..2}.mlp.up_proj.weight and 3 more: float32 → float16`."""
        names = grouped(self.where)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        place = "" if names[0].startswith("(") else f" of {names[0]}{more}"
        before, after = (
            plain(shown(value), WIDEST) for value in (self.example.expected, self.example.actual)
        )
        return plain(f"{self.example.kind}{place}: {before} → {after}")


def rows(changes: Iterable[Change]) -> list[Row]:
    """The change table's rows: each clause that regressed, changed or was fixed, in that order."""
    found: dict[tuple[str, str], list[tuple[str, list[Divergence]]]] = {}
    for change in changes:
        for key, divergences in told_by(change):
            found.setdefault(key, []).append((change.case, divergences))
    order = {clause: number for number, clause in enumerate(clauses())}
    keys = sorted(found, key=lambda key: (CHANGES.index(key[0]), order.get(key[1], 0)))
    return [_change_row(*key, found[key]) for key in keys]


def headlines(changes: Iterable[Change]) -> list[Row]:
    """The rows of common cases, if one of them is of the clause's own stage: what most users meet.
    Those of the most cases come first."""
    met = [change for change in changes if change.common]
    own = [row for row in rows(met) if any(_is_of_stage(case, row.clause) for case in row.cases)]
    return sorted(own, key=lambda row: -len(row.cases))[:HEADLINES]


def _is_of_stage(case: str, clause: str) -> bool:
    """Whether a case is of the clause's own stage, for the headlines of a comparison."""
    return case.startswith(f"{clauses()[clause].stage.lower()}/")


def told_by(change: Change) -> Iterable[tuple[tuple[str, str], list[Divergence]]]:
    """What a case's change says of each clause newly kept or broken; else its chief difference."""
    for kind, named in ((REGRESSED, change.regressed), (FIXED, change.fixed)):
        for clause in named:
            divergences = [d for d in change.divergences if d.clause == clause]
            if divergences:
                yield (kind, clause), _causes(change, divergences)
    if change.change == CHANGED and not change.regressed and not change.fixed:
        chief = min(change.divergences, key=rank)
        yield (
            (CHANGED, chief.clause),
            [d for d in change.divergences if (d.kind, d.clause) == (chief.kind, chief.clause)],
        )


def _causes(change: Change, divergences: Sequence[Divergence]) -> list[Divergence]:
    """Of a change, what explains most: values differ wherever the dtype does."""
    telling: dict[str, Divergence] = {}
    for divergence in sorted(change.divergences, key=rank):
        telling.setdefault(divergence.where, divergence)
    return [telling[d.where] if d.kind == "values" else d for d in divergences]


def rank(divergence: Divergence) -> int:
    """How much a divergence says of a change: the smaller, the more."""
    return TELLING.index(divergence.kind) if divergence.kind in TELLING else len(TELLING)


def _change_row(change: str, clause: str, found: Sequence[tuple[str, list[Divergence]]]) -> Row:
    """The row of the change table for one clause and kind of change."""
    every = [divergence for _, divergences in found for divergence in divergences]
    example = min(every, key=rank)
    alike = [
        divergence.where
        for divergence in every
        if (divergence.kind, divergence.expected, divergence.actual)
        == (example.kind, example.expected, example.actual)
    ]
    cases = tuple(case for case, _ in found)
    impact = gravest(of_kind(divergence.kind) for divergence in every) or ""
    return Row(change, clause, cases, example, tuple(dict.fromkeys(alike)), impact)


def environment_table(versions: Mapping[str, Mapping[str, str | None]]) -> Table:
    """The packages in which the environments themselves differ; a column a target."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("environment")
    for target in versions:
        table.add_column(plain(target))
    for package in next(iter(versions.values())):
        held = [str(found.get(package)) for found in versions.values()]
        if len(set(held)) > 1:
            table.add_row(package, *held)
    if not table.row_count:
        table.add_row("no difference", *([""] * len(versions)))
    return table


def change_table(changes: Sequence[Change]) -> Table:
    """The table of `compare`: a row for each clause and kind of change."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "clause", "promise", "what"):
        table.add_column(name, no_wrap=name == "clause", ratio={"what": 1}.get(name))
    table.add_column("cases", justify="right")
    last = ""
    for row in rows(changes):
        word = Text(row.change if row.change != last else "", style=STYLES[row.change])
        promise = clauses()[row.clause].title
        table.add_row(word, row.clause, promise, Text(row.what), str(len(row.cases)))
        last = row.change
    return table


def headline_table(found: Sequence[Row]) -> Table:
    """The headlines of `compare`, a line each; only the last column is cut at the screen's end."""
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    widest = max((len(clauses()[row.clause].title) for row in found), default=0)
    for name, width in (("most users meet", 15), ("clause", 7), ("promise", widest)):
        table.add_column(name, no_wrap=True, width=width)
    table.add_column("what", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in found:
        word = Text(row.change, style=STYLES[row.change])
        table.add_row(word, row.clause, clauses()[row.clause].title, Text(row.what))
    return table


def what_of(change: Change) -> str:
    """Why the two loads cannot be compared, or their chief difference; empty without one."""
    if change.reason or not change.divergences:
        return plain(change.reason)
    return _change_row("", "", [(change.case, [min(change.divergences, key=rank)])]).what


def costs(change: Change) -> tuple[str, str]:
    """The seconds and the peak memory of a compared load, before and after."""
    return (
        _before_and_after([None if s is None else f"{s:.2f} s" for s in change.seconds]),
        _before_and_after(
            [None if b is None else f"{b / 2**20:.0f} MiB" for b in change.peak_bytes]
        ),
    )


def _before_and_after(values: Sequence[str | None]) -> str:
    """Two values of a change: `before → after`."""
    return " → ".join("-" if value is None else value for value in values)


def news(change: Change) -> list[str]:
    """The lines that explain one change of a comparison."""
    head = f"{plain(change.case)}: {change.change} from {change.before} to {change.after}"
    head += f", {change.impact}" if change.impact else ""
    lines = [head + (f" (known: {change.deviation})" if change.deviation else "")]
    if change.reason:
        lines.append(f"  {plain(change.reason)}")
    for divergence in sorted(change.divergences, key=rank)[:MOST]:
        row = _change_row(change.change, divergence.clause, [(change.case, [divergence])])
        lines.append(f"  {divergence.clause or '-'}: {row.what}")
        if divergence.detail:
            lines.append(f"    {plain(divergence.detail)}")
    if len(change.divergences) > MOST:
        lines.append(f"  and {len(change.divergences) - MOST} more")
    return [*lines, f"  rerun: {plain(change.rerun)}"]


def summary(changes: Sequence[Change]) -> str:
    """A comparison's summary: `332 cases: 4 regressed, 49 changed, 222 fixed, 57 unchanged`."""
    count = Counter(change.change for change in changes)
    told = ", ".join(f"{count[change]} {change}" for change in CHANGES if count[change])
    return f"{len(changes)} cases: {told or 'none'}"


def notes(changes: Sequence[Change]) -> list[str]:
    """Notes below the change table: impacts, moved outputs, new defaults, accepted changes."""
    moved = [change for change in changes if change.moved]
    defaults = Counter(place for change in changes for place in change.defaults)
    accepted = [change for change in changes if change.accepted]
    lines = []
    for kind in (REGRESSED, CHANGED):
        found = [each for each in changes if each.change == kind and not each.accepted]
        if impacts := counted(each.impact for each in found):
            lines.append(f"{len(found)} {kind}: {impacts}")
    if moved:
        told = plain(moved[0].moved)
        lines.append(f"outputs moved within the tolerance in {len(moved)} cases: {told}")
    if defaults:
        names = plain(", ".join(place for place, _ in defaults.most_common(4)))
        lines.append(f"{len(defaults)} fields or buffers that only one release has: {names}, …")
    for each in changes:
        if each.checkpoint and each.case.endswith("/as-saved"):
            lines.append(plain(f"{each.checkpoint}, as saved: {', '.join(costs(each))}"))
    return [*lines, *(f"accepted: {plain(each.case)}: {plain(each.accepted)}" for each in accepted)]


def show_changes(
    versions: Mapping[str, Mapping[str, str | None]], changes: Sequence[Change], foot: Sequence[str]
) -> None:
    """Show a comparison: environments, the table, each regression, and how it ended."""
    screen = console()
    own = [change for change in changes if change.case.startswith("own/")]
    screen.print(environment_table(versions), "")
    if found := headlines(changes):
        screen.print(headline_table(found), "")
    for step in dict.fromkeys((change.before, change.after) for change in own):
        of_step = [change for change in own if (change.before, change.after) == step]
        screen.print(Text(plain(" → ".join(step)), style="bold"), own_table(of_step), "", sep="\n")
    if len(own) < len(changes):
        screen.print(change_table([each for each in changes if each not in own]), "")
    for change in changes:
        told = change.change in (REGRESSED, NOT_JUDGED) and change not in own
        if told and not change.accepted:
            screen.print(Text("\n".join(news(change)) + "\n"), soft_wrap=True)
    for line in [*notes(changes), *foot, summary(changes)]:
        screen.print(Text(line), soft_wrap=True)
