"""`conformance fixture`: write a tiny checkpoint, with faults if you like."""

from __future__ import annotations

import argparse
import shutil

from conformance.commands.arguments.shared import UsageError
from conformance_fixtures.llama2_7b import hollow
from conformance_fixtures.llama2_7b_geometry import NAME
from conformance_fixtures.write import materialise


def run(options: argparse.Namespace) -> int:
    """Run `conformance fixture`: write the checkpoint; the exit code."""
    if options.folder.exists():
        raise UsageError(f"{options.folder} exists already")
    if options.recipe == NAME and not options.fault:
        print(hollow(options.folder))
        return 0
    try:
        written = materialise(options.recipe, options.fault)
    except ValueError as error:
        raise UsageError(str(error)) from error
    shutil.copytree(written, options.folder)
    print(options.folder)
    return 0
