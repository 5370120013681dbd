"""`conformance verify`: compare a load with the file that `record` wrote."""

from __future__ import annotations

import argparse
from pathlib import Path

from conformance.commands.arguments import HarnessError
from conformance.commands.record import load_of
from conformance.inspect.load_record import BadRecord, options_of, read, verify


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `conformance verify`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="written by `conformance record`")
    parser.add_argument(
        "checkpoint",
        nargs="?",
        metavar="CHECKPOINT",
        help="the checkpoint, if it is no longer where it was",
    )


def run(options: argparse.Namespace) -> int:
    """Load and compare; the exit code."""
    try:
        recorded = read(options.file)
        held = options_of(recorded)
        load = load_of(options.checkpoint or held["checkpoint"], held["model"], held["dtype"])
        return verify(options.file, load, recorded)
    except BadRecord as error:
        raise HarnessError(str(error)) from error
