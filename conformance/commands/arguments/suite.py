"""Arguments of the commands that work on the suite itself."""

from __future__ import annotations

import argparse
from pathlib import Path

from packaging.version import Version

from conformance.commands.arguments.shared import PROCESSES, positive
from conformance.spec import STAGES
from conformance_fixtures.llama2_7b_geometry import NAME


def selftest(parser: argparse.ArgumentParser) -> None:
    """The arguments of `conformance selftest`."""
    parser.add_argument(
        "--stage",
        action="append",
        default=[],
        type=str.upper,
        choices=STAGES,
        metavar="STAGE",
        help="try only the mutants of this stage's clauses, such as TIE; repeatable",
    )
    parser.add_argument(
        "--clause",
        action="append",
        default=[],
        metavar="ID",
        help="try only the mutants of this clause, such as TIE-1; repeatable",
    )
    parser.add_argument(
        "-j",
        "--jobs",
        type=positive,
        default=PROCESSES,
        metavar="N",
        help="how many processes try mutants at the same time (default: one for each core, at "
        "most 4)",
    )


def bench(parser: argparse.ArgumentParser) -> None:
    """The arguments of `conformance bench`."""
    parser.add_argument(
        "--case",
        action="append",
        default=[],
        metavar="GLOB",
        help="measure only these, such as 'cuda-*'; repeatable (default: all for this machine)",
    )
    parser.add_argument(
        "--contender",
        action="append",
        default=[],
        metavar="GLOB",
        help="measure only these loaders; repeatable (default: all that are installed)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        metavar="N",
        help="fresh processes for each loader (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write bench.json and bench.svg to this folder (default: a new folder under runs/)",
    )


def fixture(parser: argparse.ArgumentParser) -> None:
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


def releases(parser: argparse.ArgumentParser) -> None:
    """The arguments of `conformance releases`."""
    parser.add_argument(
        "releases",
        nargs="*",
        type=Version,
        metavar="RELEASE",
        help="(default: the newest patch of every minor release that the index lists)",
    )
    parser.add_argument(
        "--oldest",
        type=Version,
        default=Version("4.47"),
        metavar="RELEASE",
        help="the first minor release of them (default: %(default)s)",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--resume", action="store_true", help="judge only what has no verdict yet")
    which.add_argument("--kept", action="store_true", help="judge nothing, render earlier reports")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/matrix"),
        metavar="DIR",
        help="a report a release (default: %(default)s)",
    )
    parser.add_argument(
        "--docs",
        type=Path,
        default=Path("docs"),
        metavar="DIR",
        help="where releases.md and releases.html are written (default: %(default)s)",
    )
