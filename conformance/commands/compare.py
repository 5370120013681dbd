"""`conformance compare`: judge the cases in each target, say what changed, keep it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from conformance.cases.case import Case
from conformance.commands.arguments import (
    TARGETS,
    UsageError,
    add_report,
    add_selection,
    add_timeout,
    add_trust,
    selected,
    target_errors,
)
from conformance.judge.accepted import Accept, BadAcceptFile, accept, idle, read_accepted
from conformance.judge.changes import Change, changes, exit_code
from conformance.releases import targets
from conformance.releases.judging import Run, Work, judge_in
from conformance.releases.prober import LOAD_SECONDS, our_packages
from conformance.releases.targets import Target
from conformance.report.change_table import show_changes
from conformance.report.console import Progress, watching
from conformance.report.markdown import comment
from conformance.report.renderings import render
from conformance.results.records import Recorder
from conformance.results.runs import now, recording, run_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `conformance compare`."""
    parser.add_argument("words", nargs="+", metavar="TARGET|CHECKPOINT", help=TARGETS)
    add_selection(parser)
    parser.add_argument(
        "--accept",
        type=Path,
        metavar="FILE",
        help="a TOML file of accepted changes, which do not fail the run",
    )
    add_trust(parser)
    add_timeout(parser)
    add_report(parser)


def run(options: argparse.Namespace) -> int:
    """Run `conformance compare`: compare what the arguments name; the exit code."""
    checkpoints = [Path(word) for word in options.words if Path(word).is_dir()]
    named = [word for word in options.words if not Path(word).is_dir()]
    if len(named) < 2:
        raise UsageError(f"compare needs two targets or more, and got {named}; {TARGETS}")
    cases = selected(checkpoints, options.case, options.clause, trusted=options.trust_remote_code)
    markdown = options.format == "markdown"
    asked = Comparison(
        named, cases, checkpoints, options.out, options.accept, options.timeout, markdown
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
        checkpoints: the user's, that the cases come from; empty for the fixtures.
        out: the folder of the report; None for one of its own.
        accept: the file of accepted changes; None without one.
        seconds: the limit of one load.
        markdown: whether to print a comment for a pull request instead of tables.
    """

    targets: Sequence[str]
    cases: Sequence[Case]
    checkpoints: Sequence[Path] = ()
    out: Path | None = None
    accept: Path | None = None
    seconds: float = LOAD_SECONDS
    markdown: bool = False


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
        code = exit_code(found)
        recorder.footer(code, now())
    report = render(folder)
    told = _unused_entries(found, entries)
    if asked.markdown:
        print(comment(report, told), end="")
    else:
        _show_comparison(runs, found, [*told, f"{folder}/report.jsonl"])
    return code


def _judge_targets(asked: Comparison, named: Sequence[Target], progress: Progress) -> list[Run]:
    """Judge the cases in each target that is compared, in turn."""
    pythons = [targets.interpreter(target, progress.tell) for target in named]
    with our_packages() as ours:
        work = Work(asked.cases, named, asked.checkpoints, ours, asked.seconds)
        return [
            judge_in(target, python, work, progress.task(target.name, len(asked.cases)))
            for target, python in zip(named, pythons, strict=True)
        ]


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
