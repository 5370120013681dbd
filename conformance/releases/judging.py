"""Judge cases in the environment of a target, by its probe."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from conformance.cases.case import Case
from conformance.judge.changes import Outcome
from conformance.judge.verdict import Judged, blank, verdict
from conformance.observe.baseline import baseline
from conformance.releases.prober import NotObserved, Probe, TargetUnusable
from conformance.releases.targets import Target
from conformance.results.records import ERROR, Observation

Advance = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """The verdicts and observations of one target.

    Attributes:
        target: where.
        ready: the header of its report, with the release of transformers.
        outcomes: in the order of the cases.
    """

    target: Target
    ready: dict[str, Any]
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def versions(self) -> dict[str, str | None]:
        """Package to version, Python first."""
        found: dict[str, str | None] = self.ready["versions"]
        return found


@dataclass(frozen=True)
class Work:
    """What to judge in every target.

    Attributes:
        cases: all of them.
        targets: all of them, in order.
        checkpoints: the user's, that the cases come from; empty for the fixtures.
        ours: the folder of `prober.our_packages`.
        seconds: the limit of one load.
    """

    cases: Sequence[Case]
    targets: Sequence[Target]
    checkpoints: Sequence[Path]
    ours: Path
    seconds: float

    @property
    def trusted(self) -> bool:
        """Whether the code of the user's checkpoints may run."""
        return any(
            case.folder is not None and case.options.get("trust_remote_code") is True
            for case in self.cases
        )

    def rerun(self, case: Case) -> str:
        """The line that reruns just this case in all targets."""
        words = ["conformance", "compare", *(target.name for target in self.targets)]
        words += [str(path) for path in self.checkpoints if path == case.folder]
        words += ["--trust-remote-code"] * self.trusted
        return shlex.join([*words, "--case", case.id])


def judge_in(target: Target, python: Path, work: Work, advance: Advance) -> Run:
    """The verdicts of one target on all cases.

    Args:
        target, python: where, and its interpreter.
        work: what.
        advance: is called with the id of the case that is about to be judged.

    Raises:
        TargetUnusable: the probe does not start there, or finds another release than asked for.
    """
    with Probe(
        python,
        work.ours,
        checkpoints=work.checkpoints,
        seconds=work.seconds,
        trusted=work.trusted,
    ) as probe:
        probe.start()
        run = Run(target, probe.ready)
        if not target.is_met_by(run.versions):
            raise TargetUnusable(f"{python} holds {run.versions}, which is not {target.name}")
        judged = Judged("stock", probe.ready["release"], target.name)
        for case in work.cases:
            advance(case.id)
            run.outcomes.append(_outcome(case, probe, judged, work))
    return run


def _outcome(case: Case, probe: Probe, judged: Judged, work: Work) -> Outcome:
    started = time.perf_counter()
    try:
        expected, actual = (_observed(case, probe, loader) for loader in ("reference", "stock"))
        plain = baseline(case)
        against = None if plain is None else _observed(plain, probe, "reference")
    except (NotObserved, TargetUnusable) as cause:
        result = replace(blank(case, judged, work.rerun(case)), status=ERROR, reason=str(cause))
        return Outcome(case, result)
    seconds = round(time.perf_counter() - started, 4)
    result = verdict(case, expected, actual, judged, work.rerun(case), baseline=against)
    return Outcome(case, replace(result, seconds=seconds), actual)


def _observed(case: Case, probe: Probe, loader: str) -> Observation:
    """One load; a user's checkpoint in a process of its own, so that the peak is that load's."""
    if case.folder is not None:
        probe.stop()
    try:
        return probe.observe(case.id, loader)
    except NotObserved as cause:
        raise NotObserved(f"{loader}: {cause}") from cause
