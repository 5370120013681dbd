"""`conformance selftest`: every mutant is caught by its clause, and an honest copy by none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from rich.table import Table

from conformance.case import Case
from conformance.cases import CASES, select
from conformance.mutants import MUTANTS, Mutant, honest
from conformance.records import AGREE, DIVERGE, KNOWN, Result
from conformance.report.terminal import console, progress
from conformance.run import Session, judge, open_session


@dataclass(frozen=True)
class Trial:
    """What came of one mutant: the clauses that caught it, in how many of how many cases."""

    mutant: Mutant
    caught_by: tuple[str, ...]
    diverging: int
    cases: int

    @property
    def killed(self) -> bool:
        """Whether its own clause caught it."""
        return self.mutant.clause in self.caught_by


def try_mutant(mutant: Mutant, session: Session) -> Trial:
    """Judge a mutant on the cases of its clause."""
    cases = select(CASES, [], [mutant.clause])
    results = _judge(
        cases,
        replace(session, loader=mutant.loader, loader_name=f"conformance.mutants:{mutant.name}"),
    )
    diverging = [result for result in results if result.status == DIVERGE]
    clauses = dict.fromkeys(d.clause for result in diverging for d in result.divergences)
    return Trial(mutant, tuple(clauses), len(diverging), len(cases))


def false_alarms(session: Session, cases: Iterable[Case] = CASES) -> list[Result]:
    """The verdicts on an honest copy of stock that are not as they should be."""
    honestly = replace(session, loader=honest, loader_name="conformance.mutants:honest")
    return [r for r in _judge(cases, honestly) if r.status not in (AGREE, KNOWN)]


def selftest() -> int:
    """Show every mutant with what caught it; 1 if one survives or an alarm is false."""
    session = open_session("stock")
    mutants = list(MUTANTS.values())
    trials = [try_mutant(mutant, session) for mutant in progress(mutants, len(mutants))]
    alarms = false_alarms(session)
    screen = console()
    screen.print(_table(trials))
    for result in alarms:
        screen.print(f"false alarm on an honest copy: {result.case}")
    survivors = [trial for trial in trials if not trial.killed]
    screen.print(
        f"\n{len(trials)} mutants, {len(survivors)} survive; an honest copy raises "
        f"{len(alarms)} false alarms in {len(CASES)} cases"
    )
    return 1 if survivors or alarms else 0


def _judge(cases: Iterable[Case], session: Session) -> list[Result]:
    return [judge(case, session) for case in cases]


def _table(trials: Iterable[Trial]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("mutant", "must be caught by", "verdict", "caught by", "cases", "fault"):
        table.add_column(name, no_wrap=name in ("mutant", "verdict", "cases"))
    for trial in trials:
        table.add_row(
            trial.mutant.name,
            trial.mutant.clause,
            "[green]killed[/]" if trial.killed else "[bold red]survives[/]",
            ", ".join(trial.caught_by),
            f"{trial.diverging} of {trial.cases}",
            trial.mutant.fault.strip().splitlines()[0],
        )
    return table
