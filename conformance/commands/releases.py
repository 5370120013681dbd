"""`conformance releases`: judge every minor release, and write the table of clause and release."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from conformance.cases.catalogue import CASES, IDS
from conformance.cases.own import NO_CHECKPOINT
from conformance.commands.arguments.shared import HarnessError
from conformance.deviations import deviations, stale
from conformance.judge.verdict import Judged, classified
from conformance.releases.judging import Work, judge_in
from conformance.releases.prober import LOAD_SECONDS, TargetUnusable, our_packages
from conformance.releases.published import NotListed, newest_patches, published
from conformance.releases.targets import TargetNotMade, interpreter, parse
from conformance.report.console import Progress, watching
from conformance.report.renderings import render
from conformance.report.stored_run import Report, read_whole
from conformance.report.tables.release_table import Column, as_html, as_markdown
from conformance.results.records import ERROR, BadReport, Result, exit_code
from conformance.results.runs import now, recording, write_whole


def run(options: argparse.Namespace) -> int:
    """Judge, keep a report a release, render the table; the worst exit code of any release."""
    try:
        releases = options.releases or newest_patches(published(), options.oldest)
        if not options.kept:
            with watching() as progress:
                for release in map(str, releases):
                    kept = _kept_results(options.out / release) if options.resume else {}
                    _judge_release(release, options.out, kept, progress)
        columns = [_release_column(options.out / str(release)) for release in releases]
    except (NotListed, TargetNotMade, TargetUnusable, BadReport) as error:
        raise HarnessError(str(error)) from error
    for name, text in (("md", as_markdown(columns)), ("html", as_html(columns))):
        write_whole(options.docs / f"releases.{name}", text)
    for column in columns:
        print(column)
    return max(exit_code(column.results, column.stale) for column in columns)


def _kept_results(folder: Path) -> dict[str, Result]:
    """Case to result of a release, from the report that an earlier run left, if that is whole."""
    try:
        report = read_whole(folder / "report.jsonl")
    except (OSError, BadReport):
        return {}
    return {result.case: result for result in report.runs[0] if result.status != ERROR}


def _judge_release(release: str, out: Path, kept: Mapping[str, Result], progress: Progress) -> None:
    """Judge one release and write its report; a case whose result is kept is judged no more."""
    cases = [case for case in CASES if case.id not in kept]
    if not cases:
        return
    target = parse(release)
    python = interpreter(target, progress.tell)
    with our_packages() as ours:
        work = Work(cases, [target], NO_CHECKPOINT, ours, LOAD_SECONDS)
        judged = judge_in(target, python, work, progress.task(release, len(cases)))
    found = {**kept, **{outcome.case.id: outcome.result for outcome in judged.outcomes}}
    results = [found[case.id] for case in CASES]
    folder = out / release
    folder.mkdir(parents=True, exist_ok=True)
    with recording(folder, {**judged.ready, "target": release}) as recorder:
        for result in results:
            recorder.result(result)
        recorder.footer(
            exit_code(results, _stale_deviations(results, judged.ready["release"])), now()
        )
    render(folder)


def _release_column(folder: Path) -> Column:
    """A release's column of the table: its kept report, by the deviations known today.

    Raises:
        OSError, BadReport: there is none, or it was cut off.
    """
    report = read_whole(folder / "report.jsonl")
    release = report.header["release"]
    results = list(_classified(report, release))
    return Column(
        release, report.footer["finished"][:10], results, _stale_deviations(results, release)
    )


def _classified(report: Report, release: str) -> Iterator[Result]:
    """The results of a release's kept report, by the deviations known today."""
    judged = Judged("stock", release, report.targets[0])
    for result in report.runs[0]:
        yield classified(result, judged)


def _stale_deviations(results: Sequence[Result], release: str) -> list[str]:
    """Known deviations that a release's results show to be stale."""
    return stale(results, release, IDS, deviations())
