"""`conformance fixture`: write a tiny checkpoint, with faults if you like."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from conformance.commands.arguments import UsageError
from conformance_fixtures.llama2_7b import NAME, hollow
from conformance_fixtures.write import materialise


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `conformance fixture`."""
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        help=f"such as llama-tied-head; {NAME} writes the headers of Llama-2-7B without weights",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder to write; must be new")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME",
        help="damage the checkpoint, such as truncated-shard; repeatable",
    )


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
