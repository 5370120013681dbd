"""What lies beside `report.jsonl`, rendered from it and from nothing else."""

from __future__ import annotations

from pathlib import Path

from conformance.report.badge import badge
from conformance.report.html import page
from conformance.report.junit import junit
from conformance.report.stored_run import Report, read_whole
from conformance.results.runs import RENDERINGS, write_whole

WAYS = dict(zip(RENDERINGS, (page, junit, badge), strict=True))


def render(folder: Path) -> Report:
    """Write all renderings of the report in the folder, each whole or not at all; the report.

    Raises:
        OSError: the report cannot be read, or a rendering not written.
        BadReport: it is not a report, or was cut off; nothing is written.
    """
    report = read_whole(folder / "report.jsonl")
    for name, way in WAYS.items():
        write_whole(folder / name, way(report))
    return report
