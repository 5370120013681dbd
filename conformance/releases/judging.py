"""Judge cases in the environment of a target, by its probe."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from conformance.cases.case import Case
from conformance.cases.own import Own
from conformance.judge.changes import Outcome
from conformance.judge.verdict import Judged, blank, ended, verdict
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
        own: the user's checkpoints, that the cases come from; none for the fixtures.
        ours: the folder of `prober.our_packages`.
        seconds: the limit of one load.
        measured: whether each load of a checkpoint has a process of its own, whose peak of memory
            is then that load's.
        saved: id of a case to what its target saved, see `saved_by.saved_checkpoints`.
    """

    cases: Sequence[Case]
    targets: Sequence[Target]
    own: Own
    ours: Path
    seconds: float
    measured: bool = False
    saved: Mapping[str, Path | str] = field(default_factory=dict)

    def rerun(self, case: Case) -> str:
        """The line that reruns just this case in all targets."""
        words = ["conformance", "compare", *(target.name for target in self.targets)]
        words += [str(path) for path in self.own.folders if path == case.folder]
        words += self.own.words()
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
    with Probe(python, work.ours, own=work.own, seconds=work.seconds) as probe:
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
    if unfit := case.unfit or _code_that_some_release_runs(case, work.own):
        result = replace(blank(case, judged, work.rerun(case)), status=ERROR, reason=unfit)
        return Outcome(case, result)
    nothing = blank(case, judged, work.rerun(case))
    folder = work.saved[case.id] if case.saved_by else case.folder
    if isinstance(folder, str):
        reason = f"{case.saved_by} does not load and save it: {folder}"
        return Outcome(case, replace(nothing, status=ERROR, reason=reason))
    # What is loaded; it is judged by what was published.
    moved = replace(case, folder=folder)
    try:
        expected = _observed(moved, probe, "reference", work.measured)
        if case.saved_by:
            published = _observed(case, probe, "reference", work.measured)
            expected = _with_tensors_of(published, expected)
        plain = baseline(case)
        against = None if plain is None else _observed(plain, probe, "reference", work.measured)
    except (NotObserved, TargetUnusable) as cause:
        return Outcome(case, replace(nothing, status=ERROR, reason=f"the reference: {cause}"))
    try:
        actual = _observed(moved, probe, "stock", work.measured)
    except NotObserved as cause:
        # To `compare` it is one more way to refuse a checkpoint.
        seen = Observation(exception={"types": [cause.kind], "message": str(cause)})
        return Outcome(case, ended(nothing, judged, cause.kind, str(cause)), seen)
    except TargetUnusable as cause:
        return Outcome(case, replace(nothing, status=ERROR, reason=str(cause)))
    seconds = round(time.perf_counter() - started, 4)
    result = verdict(case, expected, actual, judged, work.rerun(case), baseline=against)
    return Outcome(case, replace(result, seconds=seconds), actual)


def _code_that_some_release_runs(case: Case, own: Own) -> str:
    """Why a folder is not given to releases that run its code whatever they are told (FMT-22)."""
    if case.folder is None or own.trusted or not (case.folder / "custom_generate").exists():
        return ""
    return (
        "custom_generate holds code that 4.53 to 4.57 run without being asked to: "
        "pass --trust-remote-code to judge it"
    )


def _observed(case: Case, probe: Probe, loader: str, measured: bool) -> Observation:
    """One load; where memory is measured, in a process of its own, so that the peak is its own."""
    if measured and case.folder is not None:
        probe.stop()
    return probe.observe(case.id, loader, case.folder if case.saved_by else None)


def _with_tensors_of(published: Observation, saved: Observation) -> Observation:
    """What a load of a saved checkpoint must leave: the tensors are those that were published.

    What a checkpoint lacks has other values in each load, so it is then not held against them.
    """
    info = published.info or {}
    fresh = [info.get(field, {}).get("values") for field in ("missing_keys", "mismatched_keys")]
    failed = published.exception is not None or saved.exception is not None
    return saved if failed or any(fresh) else replace(saved, tensors=published.tensors)
