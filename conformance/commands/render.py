"""`conformance render`: write the renderings of an earlier run again."""

from __future__ import annotations

import argparse

from conformance.commands.arguments.shared import HarnessError
from conformance.report.markdown import comment
from conformance.report.renderings import render
from conformance.report.stored_run import read_whole
from conformance.results.records import BadReport


def run(options: argparse.Namespace) -> int:
    """Run `conformance render`: write a run's renderings again; the exit code."""
    try:
        if options.format == "markdown":
            print(comment(read_whole(options.folder / "report.jsonl")), end="")
        else:
            render(options.folder)
            print(options.folder / "report.html")
    except BadReport as error:
        raise HarnessError(str(error)) from error
    return 0
