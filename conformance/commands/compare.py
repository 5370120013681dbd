"""`conformance compare`: judge the cases in each target, say what changed, keep it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from conformance.cases.case import Case
from conformance.cases.folder_kinds import notes
from conformance.cases.own import NO_CHECKPOINT, Own
from conformance.commands.arguments.shared import TARGETS, UsageError
from conformance.commands.selection import own_of, selected, target_errors
from conformance.judge.accepted import Accept, BadAcceptFile, accept, idle, read_accepted
from conformance.judge.changes import DEFAULT_FAIL_ON, Change, changes, exit_code
from conformance.releases import targets
from conformance.releases.judging import Run, Work, judge_in
from conformance.releases.prober import LOAD_SECONDS, our_packages
from conformance.releases.saved_by import saved_checkpoints
from conformance.releases.targets import Target
from conformance.report.console import Progress, watching
from conformance.report.markdown import comment
from conformance.report.renderings import render
from conformance.report.tables.change_table import show_changes
from conformance.results.records import Recorder
from conformance.results.runs import now, recording, run_folder


def run(options: argparse.Namespace) -> int:
    """Run `conformance compare`: compare what the arguments name; the exit code."""
    checkpoints = [Path(word) for word in options.words if Path(word).is_dir()]
    named = [word for word in options.words if not Path(word).is_dir()]
    if len(named) < 2:
        raise UsageError(f"compare needs two targets or more, and got {named}; {TARGETS}")
    own = own_of(checkpoints, options.model_class, trusted=options.trust_remote_code)
    with target_errors():
        savers = dict.fromkeys(targets.parse(name).file_name for name in named)
    own = replace(own, savers=tuple(savers))
    cases = selected(own, options.case, options.clause)
    asked = Comparison(
        named,
        cases,
        own,
        options.out,
        options.accept,
        options.timeout,
        markdown=options.format == "markdown",
        fail_on=options.fail_on,
        allow_unjudged=options.allow_unjudged,
        measured=options.measure,
        jobs=options.jobs,
    )
    try:
        with target_errors():
            return compare(asked)
    except BadAcceptFile as error:
        raise UsageError(str(error)) from error


@dataclass(frozen=True)
class Comparison:
    """What is asked for.

    Attributes:
        targets: the words that name them, two or more.
        cases: what to judge in each.
        own: the user's checkpoints, that the cases come from; none for the fixtures.
        out: the folder of the report; None for one of its own.
        accept: the file of accepted changes; None without one.
        seconds: the limit of one load.
        markdown: whether to print a comment for a pull request instead of tables.
        fail_on, allow_unjudged: see `changes.exit_code`.
        measured: see `Work.measured`.
        jobs: how many targets are judged at the same time.
    """

    targets: Sequence[str]
    cases: Sequence[Case]
    own: Own = NO_CHECKPOINT
    out: Path | None = None
    accept: Path | None = None
    seconds: float = LOAD_SECONDS
    markdown: bool = False
    fail_on: Sequence[str] = DEFAULT_FAIL_ON
    allow_unjudged: bool = False
    measured: bool = False
    jobs: int = 1


def compare(asked: Comparison) -> int:
    """Compare targets: judge the cases in each, and show what changed; the exit code.

    Raises:
        BadTarget, BadAcceptFile: a target or the accept file is malformed.
        TargetNotMade, TargetUnusable: an environment cannot be created, or does not work.
    """
    entries = read_accepted(asked.accept) if asked.accept else []
    named = [targets.parse(name) for name in asked.targets]
    with watching() as progress:
        runs = _judge_targets(asked, named, progress)
    found = [
        change
        for before, after in pairwise(runs)
        for change in accept(changes(before.outcomes, after.outcomes), entries)
    ]
    folder = run_folder(asked.out, "-to-".join(each.file_name for each in named))
    with recording(folder, _header(runs), "change") as recorder:
        _keep_changes(recorder, runs, found)
        code = exit_code(found, asked.fail_on, allow_unjudged=asked.allow_unjudged)
        recorder.footer(code, now())
    report = render(folder)
    told = [*_unused_entries(found, entries), *notes(asked.own.folders)]
    if asked.markdown:
        print(comment(report, told), end="")
    else:
        _show_comparison(runs, found, [*told, f"{folder}/report.jsonl"])
    return code


def _judge_targets(asked: Comparison, named: Sequence[Target], progress: Progress) -> list[Run]:
    """Judge the cases in each target that is compared, side by side."""
    pythons = [targets.interpreter(target, progress.tell) for target in named]
    by_target = dict(zip(named, pythons, strict=True))
    with (
        our_packages() as ours,
        saved_checkpoints(
            *(asked.cases, by_target, ours, asked.own, asked.seconds), task=progress.task
        ) as saved,
        ThreadPoolExecutor(max(1, asked.jobs)) as threads,
    ):
        work = Work(asked.cases, named, asked.own, ours, asked.seconds, asked.measured, saved)
        bars = [progress.task(target.name, len(asked.cases)) for target in named]
        runs = [
            threads.submit(judge_in, target, python, work, advance)
            for target, python, advance in zip(named, pythons, bars, strict=True)
        ]
        return [run.result() for run in runs]


def _header(runs: Sequence[Run]) -> dict[str, object]:
    """The header of a comparison's report: that of the last target, with all of them beside it."""
    names = [run.target.name for run in runs]
    versions = {run.target.name: run.versions for run in runs}
    return runs[-1].ready | {"target": " ".join(names), "targets": names, "environments": versions}


def _keep_changes(recorder: Recorder, runs: Sequence[Run], found: Sequence[Change]) -> None:
    """Write the results and the changes of a comparison to its report."""
    for run in runs:
        for outcome in run.outcomes:
            recorder.result(outcome.result)
    for change in found:
        recorder.record(change.record())


def _unused_entries(found: Sequence[Change], entries: Sequence[Accept]) -> list[str]:
    """Lines on entries of the accept file that no change of the comparison matches."""
    return [
        f"unused entry in the accept file: case {entry.case} ({entry.reason})"
        for entry in idle(found, entries)
    ]


def _show_comparison(runs: Sequence[Run], found: Sequence[Change], foot: Sequence[str]) -> None:
    """Show the changes between the compared targets."""
    show_changes({run.target.name: run.versions for run in runs}, found, foot)
