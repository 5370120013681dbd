"""`conformance bisect`: the release in which a case began to be judged otherwise, in log2 steps."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from conformance.cases.case import Case
from conformance.cases.own import NO_CHECKPOINT, Own
from conformance.commands.arguments.shared import HarnessError
from conformance.commands.selection import known_clauses, one_case, own_of, selected, target_errors
from conformance.judge.changes import Change, Outcome, change
from conformance.releases import targets
from conformance.releases.judging import Run, Work, judge_in
from conformance.releases.prober import LOAD_SECONDS, TargetUnusable, our_packages
from conformance.releases.published import PACKAGE, NotListed, published
from conformance.releases.targets import Target, TargetNotMade
from conformance.report.tables.change_table import news
from conformance.results.records import ERROR, SKIP, Divergence

MOST = 3
COMPARE = ("conformance", "compare")

Say = Callable[[str], None]
Sign = tuple[str, ...]

_SAY = partial(print, flush=True)  # a step takes long enough to be waited for


class NothingToFind(RuntimeError):
    """There is no release to look for; the message says why."""


def run(options: argparse.Namespace) -> int:
    """Run `conformance bisect`: search for the release; the exit code."""
    known_clauses([options.clause] if options.clause else [])
    own, case = NO_CHECKPOINT, None
    if Path(options.case).is_dir():
        own = own_of([options.case], options.model_class, trusted=options.trust_remote_code)
        (case,) = selected(own, [f"own/*/{options.form}"], [])
    case = case or one_case(options.case)
    asked = Search(case, options.good, options.bad, options.clause, options.timeout, own)
    try:
        with target_errors():
            return bisect(asked)
    except NothingToFind as error:
        raise HarnessError(str(error)) from error


@dataclass(frozen=True)
class Search:
    """What is asked for.

    Attributes:
        case: the case.
        good, bad: the words that name the two targets; either may be the newer one.
        clause: the only clause that counts; "" for all that the two keep and break differently.
        seconds: the limit of one load.
        own: the checkpoint that the case is on; none for a case of the suite.
    """

    case: Case
    good: str
    bad: str
    clause: str = ""
    seconds: float = LOAD_SECONDS
    own: Own = NO_CHECKPOINT


@dataclass(frozen=True)
class Step:
    """One target, judged, and its release."""

    target: Target
    release: str
    outcome: Outcome


def bisect(asked: Search, say: Say = _SAY) -> int:
    """Bisect a case: 0 if one release is found, 2 if what has no verdict hides which one it is.

    Raises:
        BadTarget: a word names no target.
        TargetNotMade, TargetUnusable: `good` or `bad` cannot be judged.
        NothingToFind: the two do not differ, or no release lies between them.
    """
    ends = [targets.parse(name) for name in (asked.good, asked.bad)]
    others = _shared_requirements(*ends)
    with our_packages() as ours:
        judge = _Judge(asked, Work([asked.case], ends, asked.own, ours, asked.seconds), others)
        good, bad = (judge.end(end) for end in ends)
        telling = tell_apart(good.outcome, bad.outcome, asked.clause)
        releases = between(good.release, bad.release, _releases_to_bisect())
        say(f"{asked.case.id}: {len(releases)} releases, {releases[0]} is good, {releases[-1]} bad")
        say(f"what tells them apart: {telling}")
        judge.known = {good.release: good, bad.release: bad}
        low, high = halve(releases, lambda release: judge.step(release, telling, say))
    return _conclude(asked, releases[low : high + 1], judge, telling, say)


def _releases_to_bisect() -> list[str]:
    """The releases that can be installed, between which a bisection searches."""
    try:
        return [str(version) for version in published()]
    except NotListed as cause:
        raise NothingToFind(str(cause)) from cause


def between(good: str, bad: str, every: Sequence[str]) -> list[str]:
    """The releases to bisect: what was released between `good` and `bad`, both included.

    Raises:
        NothingToFind: both are the same.
    """
    if Version(good) == Version(bad):
        raise NothingToFind(f"good and bad are both {PACKAGE} {good}: no release lies between them")
    low, high = sorted((good, bad), key=Version)
    inner = [each for each in every if Version(low) < Version(each) < Version(high)]
    inner.sort(key=Version, reverse=low == bad)
    return [good, *inner, bad]


def halve(releases: Sequence[str], is_bad: Callable[[str], bool | None]) -> tuple[int, int]:
    """The places of the last good and the first bad one; between them is only what has no verdict.

    Args:
        releases: the first is good, the last bad.
        is_bad: the verdict on one; None if there is none, and a neighbour is to be tried.
    """
    low, high = 0, len(releases) - 1
    skipped: set[int] = set()
    while open_ := [place for place in range(low + 1, high) if place not in skipped]:
        middle = min(open_, key=lambda place: abs(2 * place - low - high))
        verdict = is_bad(releases[middle])
        if verdict is None:
            skipped.add(middle)
        elif verdict:
            high = middle
        else:
            low = middle
    return low, high


@dataclass(frozen=True)
class Telling:
    """What tells a bad release from a good one.

    Attributes:
        sign: what of an outcome is looked at: clauses, or places.
        of: the same of one divergence.
        differing: in what of it good and bad differ.
        good: what of that is there in the good one.
    """

    sign: Callable[[Outcome], frozenset[Sign]]
    of: Callable[[Divergence], Sign]
    differing: frozenset[Sign]
    good: frozenset[Sign]

    def is_bad(self, outcome: Outcome) -> bool:
        """Whether what a bisected release did tells it from the good one."""
        return self.sign(outcome) & self.differing != self.good

    def news_of(self, found: Change) -> Change:
        """The change between two releases of a bisection, without what does not tell."""
        telling = tuple(d for d in found.divergences if self.of(d) in self.differing)
        return replace(found, divergences=telling or found.divergences)

    def __str__(self) -> str:
        names = sorted(" of ".join(sign) for sign in self.differing)
        return ", ".join(names[:MOST]) + (f" and {len(names) - MOST} more" * (len(names) > MOST))


def tell_apart(good: Outcome, bad: Outcome, clause: str = "") -> Telling:
    """By what a bisection tells a bad release from a good one.

    The cited clauses that only one of the two breaks; else the places in which only one of the two
    breaks them; else the places in which what the two loads left differs.

    Args:
        good, bad: both judged.
        clause: the only clause that counts; "" for all.

    Raises:
        NothingToFind: the two do not differ.
    """
    cited = {clause} if clause else set(good.case.clauses)

    def broken(outcome: Outcome) -> list[Divergence]:
        return [each for each in outcome.result.divergences if each.clause in cited]

    def changed(outcome: Outcome) -> list[Divergence]:
        found = change(good, outcome).divergences
        return [each for each in found if clause in ("", each.clause)]

    for divergences, of in ((broken, _clause_sign), (broken, _place_sign), (changed, _place_sign)):
        sign = _signs_by(divergences, of)
        if differing := sign(good) ^ sign(bad):
            return Telling(sign, of, differing, sign(good) & differing)
    matter = clause or "anything that counts"
    raise NothingToFind(f"good and bad do not differ in {matter}: there is nothing to look for")


def _signs_by(
    divergences: Callable[[Outcome], list[Divergence]], of: Callable[[Divergence], Sign]
) -> Callable[[Outcome], frozenset[Sign]]:
    """A function from what a bisected release did to the signs by which it is good or bad."""
    return lambda outcome: frozenset(map(of, divergences(outcome)))


def _clause_sign(divergence: Divergence) -> Sign:
    """A clause as the sign that a bisection looks at."""
    return (divergence.clause,)


def _place_sign(divergence: Divergence) -> Sign:
    """A kind of divergence and its place as the sign that a bisection looks at."""
    return divergence.kind, divergence.where


def _shared_requirements(good: Target, bad: Target) -> tuple[str, ...]:
    """What both are to have beside transformers; the releases between them get it too."""
    pinned = [
        tuple(each for each in target.requirements if Requirement(each).name != PACKAGE)
        for target in (good, bad)
    ]
    if pinned[0] != pinned[1]:
        raise NothingToFind(
            f"{good.name} and {bad.name} differ in more than their release of {PACKAGE}: "
            f"{', '.join(pinned[0]) or 'nothing'} against {', '.join(pinned[1]) or 'nothing'}"
        )
    return pinned[0]


class _Judge:
    """Judges the case in one release after the other, and remembers.

    Attributes:
        known: what was judged, by release.
    """

    def __init__(self, asked: Search, work: Work, others: tuple[str, ...]) -> None:
        self._asked, self._work, self._others = asked, work, others
        self.known: dict[str, Step] = {}

    def end(self, target: Target) -> Step:
        """Judge the good or the bad release of a bisection: it needs the verdict on both."""
        step = self._judged(target)
        if step.outcome.result.status in (ERROR, SKIP):
            told = step.outcome.result.reason
            raise NothingToFind(f"{target.name} has no verdict on {self._asked.case.id}: {told}")
        return step

    def step(self, release: str, telling: Telling, say: Say) -> bool | None:
        """The verdict on a release inside a bisection; None, and why, if there is none."""
        started = time.perf_counter()
        words = ",".join([f"{PACKAGE}=={release}", *self._others]) if self._others else release
        try:
            step = self._judged(targets.parse(words))
        except (TargetNotMade, TargetUnusable) as cause:
            say(f"{release:<10} skipped  {cause}")
            return None
        if step.outcome.result.status in (ERROR, SKIP):
            say(f"{release:<10} skipped  {step.outcome.result.reason}")
            return None
        self.known[release] = step
        bad = telling.is_bad(step.outcome)
        say(f"{release:<10} {'bad' if bad else 'good':<8} {time.perf_counter() - started:.1f} s")
        return bad

    def _judged(self, target: Target) -> Step:
        """Judge the case in one release of the bisection."""
        python: Path = targets.interpreter(target)
        run: Run = judge_in(target, python, self._work, lambda case: None)
        return Step(target, run.ready["release"], run.outcomes[0])


def _conclude(asked: Search, left: Sequence[str], judge: _Judge, telling: Telling, say: Say) -> int:
    """Say which release the bisection found; the exit code.

    Args:
        left: the last good release, those that could not be judged, the first bad one.
    """
    good, *hidden, bad = left
    last, first = judge.known[good], judge.known[bad]
    found = replace(
        telling.news_of(change(last.outcome, first.outcome)),
        rerun=shlex.join(
            [
                *(*COMPARE, last.target.name, first.target.name),
                *(*map(str, asked.own.folders), *asked.own.words(), "--case", asked.case.id),
            ]
        ),
    )
    if hidden:
        say(f"first bad release: one of {', '.join([*hidden, bad])}; the others have no verdict")
    else:
        say(f"first bad release: {bad}")
    say(f"last good release: {good}")
    say("\n".join(news(found)))
    return 2 if hidden else 0
