"""`conformance check`: judge, show, keep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from conformance.cases.case import Case
from conformance.cases.catalogue import IDS
from conformance.deviations import deviations, stale
from conformance.judge.session import Session, header, judge_all, open_session
from conformance.report.console import progress, show, summary
from conformance.report.markdown import comment
from conformance.report.renderings import render
from conformance.results.records import Result, exit_code
from conformance.results.runs import now, recording, run_folder


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
