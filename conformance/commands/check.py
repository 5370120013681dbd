"""`conformance check`: judge, show, keep."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.cases.case import Case
from conformance.cases.catalogue import IDS
from conformance.cases.folder_kinds import notes
from conformance.commands.arguments.shared import PROCESSES, HarnessError, UsageError
from conformance.commands.selection import (
    model_class,
    of_architectures,
    own_of,
    refuse_code,
    selected,
)
from conformance.deviations import deviations, stale
from conformance.judge.apart import judge_apart
from conformance.judge.session import Session, find_session, header, judge_all, open_session
from conformance.observe.loaders import UnknownLoader
from conformance.report.console import progress, show, summary
from conformance.report.markdown import comment
from conformance.report.renderings import render
from conformance.results.impacts import gravest
from conformance.results.records import ERROR, SKIP, Result, exit_code
from conformance.results.runs import now, recording, run_folder
from conformance.world.gpus import absent


def run(options: argparse.Namespace) -> int:
    """Run `conformance check`: judge what the arguments select; the exit code."""
    if reason := absent(options.device):
        raise HarnessError(f"--device {options.device}: {reason}")
    trusted: bool = options.trust_remote_code
    own = own_of(options.checkpoints, options.model_class, trusted=trusted)
    show_as = Shown(options.format == "markdown", tuple(options.impact), options.allow_unjudged)
    with tempfile.TemporaryDirectory(prefix="conformance-architectures-") as folder:
        types = of_architectures(options.arch, Path(folder)) if options.arch else []
        cases = selected(own, options.case, options.clause, options.device, types)
        for each in own.folders:
            refuse_code(each, trusted, model_class(own.model))
        for note in notes(own.folders):
            print(note, file=sys.stderr)
        loader, out, device = options.loader, options.out, options.device
        try:
            return check(cases, loader, out, show_as, device, jobs=options.jobs)
        except UnknownLoader as error:
            raise UsageError(str(error)) from error


@dataclass(frozen=True)
class Shown:
    """What of the verdicts is shown, and how.

    Attributes:
        markdown: a comment for a pull request instead of tables.
        impacts: show and record only results of these; empty for all.
        allow_unjudged: whether what was not judged is left out of the exit code.
    """

    markdown: bool = False
    impacts: tuple[str, ...] = ()
    allow_unjudged: bool = False

    def has(self, result: Result) -> bool:
        """Whether `check` shows the result; what has no verdict always is.

        A head that the release does not have for the user's checkpoint is no case of it.
        """
        if result.status == SKIP and result.case.startswith("own/"):
            return False
        return not self.impacts or result.impact in self.impacts or result.status == ERROR


def check(
    cases: Sequence[Case],
    loader_name: str,
    out: Path | None,
    shown: Shown = Shown(),
    device: str = "cpu",
    *,
    jobs: int | None = None,
) -> int:
    """Judge the cases, show what is asked for, write the records; the exit code.

    Every case is judged before its impact is known; the exit code is that of the results shown.

    Raises:
        UnknownLoader: `loader_name` names none.
    """
    started = time.monotonic()
    session, verdicts = _judging(cases, loader_name, device, jobs)
    folder = run_folder(out, session.target)
    results: list[Result] = []
    selection = {"impacts": list(shown.impacts)} if shown.impacts else {}
    with recording(folder, header(session) | selection) as recorder:
        for result in filter(shown.has, progress(verdicts, len(cases))):
            recorder.result(result)
            results.append(result)
        complaints = [] if shown.impacts else _stale(results, session)
        counted = [each for each in results if each.status != ERROR or not shown.allow_unjudged]
        code = exit_code(counted, complaints)
        recorder.footer(code, now())
    took = time.monotonic() - started
    report = render(folder)
    # With no impact asked for, what is not shown is a head that the release does not have.
    judged = len(cases) if shown.impacts else len(results)
    if shown.markdown:
        print(comment(report, [f"stale deviation: {line}" for line in complaints]), end="")
    else:
        show(results, complaints, _foot(results, session, folder, judged, took))
    return code


def _judging(
    cases: Sequence[Case], loader_name: str, device: str, jobs: int | None
) -> tuple[Session, Iterable[Result]]:
    """The session and its verdicts.

    Another loader than stock and the reference is judged in a process apart, which it may end, and
    several processes judge side by side. On a GPU this one does: no fork can use it.
    """
    if jobs is None:  # a checkpoint of the user's may fill the memory
        jobs = 1 if any(case.id.startswith("own/") for case in cases) else PROCESSES
    apart = min(jobs, len(cases)) > 1 or loader_name not in ("stock", "reference")
    if not apart or device != "cpu" or not hasattr(os, "fork"):
        session = open_session(loader_name, device)
        return session, judge_all(cases, session)
    session = find_session(loader_name, device)
    return session, judge_apart(cases, session, jobs=jobs)


def _stale(results: Sequence[Result], session: Session) -> list[str]:
    """Only stock on the CPU keeps the list up to date: another loader may well be better."""
    if (session.loader_name, session.device) != ("stock", "cpu"):
        return []
    return stale(results, session.release, IDS, deviations())


def _foot(
    results: Sequence[Result], session: Session, folder: Path, judged: int, seconds: float
) -> list[str]:
    """The foot of what `check` shows: where to read more, what was judged, and how long it took."""
    of = f" of {judged} judged" if len(results) < judged else ""
    lines = [
        f"{summary(results)}{of}; {session.loader_name} (transformers {session.release}) against "
        f"the reference, {seconds:.1f} s, {folder}/report.jsonl"
    ]
    worst = gravest(result.impact for result in results if result.impact)
    if worst and not of:
        hint = f"Reasons and upstream links: {folder}/report.html."
        lines.insert(0, f"{hint} Only the gravest: add --impact {worst}.")
    return lines
