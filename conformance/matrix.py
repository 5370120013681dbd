"""`make releases`: every minor release judged, and the table of clause and release.

python -m conformance.matrix [--oldest 4.47] [--out runs/releases] [--docs docs]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from packaging.version import Version

from conformance.across import Run, Work, judge_in
from conformance.cases import CASES
from conformance.keep import now, recording
from conformance.published import newest_patches, published
from conformance.records import Result, exit_code
from conformance.remote import LOAD_SECONDS, our_packages
from conformance.report.releases import as_markdown
from conformance.report.terminal import Progress, watching
from conformance.targets import interpreter, parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge, keep a report a release, render the table; the worst exit code."""
    parser = argparse.ArgumentParser(prog="conformance.matrix")
    parser.add_argument("--oldest", type=Version, default=Version("4.47"))
    parser.add_argument("--out", type=Path, default=Path("runs/releases"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    options = parser.parse_args(arguments)
    releases = newest_patches(published(), options.oldest)
    with watching() as progress:
        runs = {str(each): _judged(str(each), options.out, progress) for each in releases}
    text = as_markdown({release: _results(run) for release, run in runs.items()}, now()[:10])
    (options.docs / "releases.md").write_text(text, "utf-8")
    return max(exit_code(_results(run), ()) for run in runs.values())


def _judged(release: str, out: Path, progress: Progress) -> Run:
    """One release, its report written."""
    target = parse(release)
    python = interpreter(target, progress.tell)
    with our_packages() as ours:
        work = Work(CASES, [target], (), ours, LOAD_SECONDS)
        run = judge_in(target, python, work, progress.task(release, len(CASES)))
    folder = out / release
    folder.mkdir(parents=True, exist_ok=True)
    with recording(folder, {**run.ready, "target": release}) as recorder:
        for result in _results(run):
            recorder.result(result)
        recorder.footer(exit_code(_results(run), ()), now())
    return run


def _results(run: Run) -> list[Result]:
    return [outcome.result for outcome in run.outcomes]


if __name__ == "__main__":
    raise SystemExit(main())
