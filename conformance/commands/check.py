"""`conformance check`: judge, show, keep."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from conformance.cases.case import Case
from conformance.cases.catalogue import IDS
from conformance.commands.arguments import (
    HarnessError,
    UsageError,
    add_report,
    add_selection,
    selected,
)
from conformance.deviations import deviations, stale
from conformance.judge.session import Session, header, judge_all, open_session
from conformance.observe.loaders import UnknownLoader
from conformance.report.console import progress, show, summary
from conformance.report.markdown import comment
from conformance.report.renderings import render
from conformance.results.records import Result, exit_code
from conformance.results.runs import now, recording, run_folder
from conformance.world.gpus import absent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `conformance check`."""
    parser.add_argument(
        "checkpoints",
        nargs="*",
        metavar="CHECKPOINT",
        help="a folder, or an id on the Hub; without any, the cases of the specification",
    )
    parser.add_argument(
        "--loader",
        default="stock",
        metavar="stock|reference|MODULE:ATTR",
        help="what to judge: a callable f(cls, path, **kwargs); cls may be None (default: stock)",
    )
    add_selection(parser)
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="where the models are loaded to (default: cpu)",
    )
    add_report(parser)


def run(options: argparse.Namespace) -> int:
    """Judge what the arguments select; the exit code."""
    if reason := absent(options.device):
        raise HarnessError(f"--device {options.device}: {reason}")
    cases = selected(options.checkpoints, options.case, options.clause, options.device)
    markdown = options.format == "markdown"
    try:
        return check(cases, options.loader, options.out, markdown, options.device)
    except UnknownLoader as error:
        raise UsageError(str(error)) from error


def check(
    cases: Sequence[Case],
    loader_name: str,
    out: Path | None,
    markdown: bool = False,
    device: str = "cpu",
) -> int:
    """Judge the cases, show the table or a comment in Markdown, write the records; the exit code.

    Raises:
        UnknownLoader: `loader_name` names none.
    """
    session = open_session(loader_name, device)
    folder = run_folder(out, session.target)
    results: list[Result] = []
    with recording(folder, header(session)) as recorder:
        for result in progress(judge_all(cases, session), len(cases)):
            recorder.result(result)
            results.append(result)
        complaints = _stale(results, session)
        code = exit_code(results, complaints)
        recorder.footer(code, now())
    report = render(folder)
    if markdown:
        print(comment(report, [f"stale deviation: {line}" for line in complaints]), end="")
    else:
        show(results, complaints, _foot(results, session, folder))
    return code


def _stale(results: Sequence[Result], session: Session) -> list[str]:
    """Only stock on the CPU keeps the list up to date: another loader may well be better."""
    if (session.loader_name, session.device) != ("stock", "cpu"):
        return []
    return stale(results, session.release, IDS, deviations())


def _foot(results: Sequence[Result], session: Session, folder: Path) -> str:
    seconds = sum(result.seconds for result in results)
    return (
        f"\n{summary(results)}; {session.loader_name} (transformers {session.release}) against "
        f"the reference, {seconds:.1f} s, {folder}/report.jsonl"
    )
