"""`conformance selftest`: every mutant is caught by its clause, and an honest copy by none."""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import torch
from rich.table import Table
from rich.text import Text

from conformance.cases.case import Case
from conformance.cases.catalogue import CASES, select
from conformance.commands.arguments.shared import UsageError
from conformance.commands.selection import known_clauses
from conformance.deviations import deviations
from conformance.judge import session as judging
from conformance.judge.apart import judge_apart
from conformance.judge.session import Session, judge, open_session, rerun
from conformance.judge.verdict import verdict
from conformance.mutants import MUTANTS, Mutant, honest
from conformance.observe.loaders import Loader, stock
from conformance.observe.observe import observe
from conformance.report.console import console, progress
from conformance.report.explanation import explanation
from conformance.results.records import AGREE, KNOWN, Observation, Result
from conformance.spec import clauses

# Seconds in which a load of a tiny checkpoint must have ended, on a busy machine too.
SECONDS = 20.0

# Cases a mutant is tried on: some clauses have a hundred, and the table is no better for them.
MOST_CASES = 8


def run(options: argparse.Namespace) -> int:
    """Run `conformance selftest`: try the mutants; the exit code."""
    known_clauses(options.clause)
    chosen = [*options.clause, *(c.id for c in clauses().values() if c.stage in options.stage)]
    return selftest(chosen, options.jobs)


@dataclass(frozen=True)
class Trial:
    """What came of one mutant: the clauses that caught it, in how many of how many cases."""

    mutant: Mutant
    caught_by: tuple[str, ...]
    catching: int
    cases: int

    @property
    def killed(self) -> bool:
        """Whether the mutant's own clause caught it."""
        return self.mutant.clause in self.caught_by

    @property
    def others(self) -> tuple[str, ...]:
        """The other clauses that caught the mutant."""
        return tuple(clause for clause in self.caught_by if clause != self.mutant.clause)


@dataclass
class Bench:
    """Where loaders are tried; what the reference leaves is observed once for each case."""

    session: Session
    _expected: dict[str, tuple[Observation, Observation | None]] = field(default_factory=dict)

    def try_mutant(self, mutant: Mutant) -> Trial:
        """What catches a mutant in the cases of its clause, its own case first."""
        cases = select(CASES, [], [mutant.clause])
        cases.sort(key=lambda case: case.id != mutant.case)
        cases = cases[:MOST_CASES]
        session = self._session_of_mutant(mutant.loader, mutant.name)
        if mutant.ends:
            verdicts = list(judge_apart(cases, session, SECONDS, prepared=True))
        else:
            verdicts = [self._verdict(case, session) for case in cases]
        caught = [caught_by(mutant, each, session) for each in verdicts]
        clauses = dict.fromkeys(clause for each in caught for clause in each)
        return Trial(mutant, tuple(clauses), sum(map(bool, caught)), len(cases))

    def false_alarm(self, case: Case) -> Result | None:
        """The verdict on an honest copy of stock if it is not as it should be, explained."""
        session = self._session_of_mutant(honest, "honest")
        if self._verdict(case, session).status in (AGREE, KNOWN):
            return None
        return judge(case, session)

    def _session_of_mutant(self, loader: Loader, name: str) -> Session:
        """The selftest's session with a mutant as its loader."""
        return replace(self.session, loader=loader, loader_name=f"conformance.mutants:{name}")

    def _verdict(self, case: Case, session: Session) -> Result:
        """The verdict of the selftest on a loader, without the numbers that explain it."""
        if case.id not in self._expected:
            self._expected[case.id] = judging.expectation(case), judging.baseline_of(case)
        actual = observe(case, session.loader).observation
        expected, plain = self._expected[case.id]
        line = rerun(case, session)
        return verdict(case, expected, actual, session.judged, line, baseline=plain)


def caught_by(mutant: Mutant, result: Result, session: Session) -> tuple[str, ...]:
    """The clauses that a mutant breaks, where the loader it is made of is not known to."""
    listed = deviations() if mutant.of is stock else ()
    ranges = [within for each in listed for within in each.ranges]
    concerned = [each for each in ranges if each.concerns(result.case, session.release)]
    found = (d for d in result.divergences if not any(each.covers(d) for each in concerned))
    return tuple(dict.fromkeys(divergence.clause for divergence in found))


def selftest(chosen: Sequence[str] = (), jobs: int = 1) -> int:
    """Try every mutant and show what caught it; 1 if one survives or an alarm is false.

    Args:
        chosen: try only the mutants of these clauses, and the honest copy in the cases that cite
            them; all if empty.
        jobs: how many processes try mutants at the same time; with 1 it is this one.
    """
    mutants = [each for each in MUTANTS.values() if not chosen or each.clause in chosen]
    cases = [case for case in CASES if not chosen or set(chosen) & set(case.clauses)]
    if chosen and not mutants:
        raise UsageError(f"there are no mutants of {', '.join(chosen)}")
    with ExitStack() as stack:
        if jobs > 1:  # forked before this process loads anything
            fork = multiprocessing.get_context("fork")
            pool = stack.enter_context(ProcessPoolExecutor(jobs, fork, _open_bench))
            judged = pool.map(_false_alarm, cases)
            tried = pool.map(_tried, [mutant.name for mutant in mutants])
        else:
            _open_bench()
            judged, tried = map(_false_alarm, cases), map(_tried, [each.name for each in mutants])
        alarms = [alarm for alarm in progress(judged, len(cases)) if alarm is not None]
        trials = [
            Trial(mutant, *found)
            for mutant, found in zip(mutants, progress(tried, len(mutants)), strict=True)
        ]
    screen = console()
    screen.print(_mutant_table(trials))
    for result in alarms:
        lines = ["\nfalse alarm on an honest copy of stock:", *explanation(result)]
        screen.print(Text("\n".join(lines)), soft_wrap=True)
    screen.print(Text(_selftest_foot(trials, alarms, len(cases))), soft_wrap=True)
    return 1 if alarms or not all(trial.killed for trial in trials) else 0


# The bench of this process: the one of `selftest`, or one of those beside it.
_BENCHES: list[Bench] = []


def _open_bench() -> None:
    """Open the bench of this process: it has loaded once with both loaders."""
    torch.set_num_threads(1)  # the models are tiny: a second thread waits, or spins on a busy core
    _BENCHES[:] = [Bench(open_session("stock"))]


def _false_alarm(case: Case) -> Result | None:
    """See `Bench.false_alarm`."""
    return _BENCHES[0].false_alarm(case)


def _tried(name: str) -> tuple[tuple[str, ...], int, int]:
    """See `Bench.try_mutant`: a trial without its mutant, which no process can hand on."""
    trial = _BENCHES[0].try_mutant(MUTANTS[name])
    return trial.caught_by, trial.catching, trial.cases


def _selftest_foot(trials: Sequence[Trial], alarms: Sequence[Result], cases: int) -> str:
    """How the selftest ended: survivors, mutants by number, false alarms."""
    survivors = [trial for trial in trials if not trial.killed]
    lines = [
        f"{each.mutant.name} survives. rerun: conformance check --case {each.mutant.case}"
        f" --loader conformance.mutants:{each.mutant.name}"
        for each in survivors
    ]
    lines.append(
        f"\n{len(trials)} mutants, {len(survivors)} survive; an honest copy raises "
        f"{len(alarms)} false alarms in {cases} cases"
    )
    return "\n".join(lines)


def _mutant_table(trials: Iterable[Trial]) -> Table:
    """The table of the selftest: a row a mutant, with the clauses that caught it."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("mutant", "clause", "verdict", "caught in", "caught too by"):
        table.add_column(name, no_wrap=name != "caught too by")
    for trial in trials:
        table.add_row(
            trial.mutant.name,
            trial.mutant.clause,
            "[green]killed[/]" if trial.killed else "[bold red]survives[/]",
            f"{trial.catching} of {trial.cases}",
            ", ".join(trial.others),
        )
    return table
