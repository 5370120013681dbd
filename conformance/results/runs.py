"""Where a run is kept: a folder of its own, and `latest` beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conformance.results.records import Recorder


def now() -> str:
    """The time of a run: UTC, to the second, ISO 8601."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def run_folder(out: Path | None, target: str) -> Path:
    """The folder of a run: `out`, or `runs/<UTC time>-<target>` with `runs/latest` to it."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        return out
    runs = Path("runs")
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = next(
        path
        for number in range(1000)
        if not (path := runs / f"{stamp}-{target}{f'-{number}' if number else ''}").exists()
    )
    folder.mkdir(parents=True)
    fresh = runs / f".latest-{os.getpid()}"
    fresh.symlink_to(folder.name)
    fresh.replace(runs / "latest")
    return folder


# What is rendered from `report.jsonl`; never older than it.
RENDERINGS = ("report.html", "junit.xml", "badge.svg")


def write_whole(path: Path, text: str) -> None:
    """Write a file of a run completely or not at all, even if the process is killed."""
    fresh = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        fresh.write_text(text, "utf-8")
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def recording(
    folder: Path, header: Mapping[str, Any], counted: str = "result"
) -> Iterator[Recorder]:
    """A recorder on a run's `report.jsonl`, its header written; the caller writes the footer.

    What an earlier run in the same folder rendered goes first: it would read as this one's.
    """
    for name in RENDERINGS:
        (folder / name).unlink(missing_ok=True)
    with (folder / "report.jsonl").open("w", encoding="utf-8") as file:
        recorder = Recorder(file, counted)
        recorder.header(**header, started=now())
        yield recorder
