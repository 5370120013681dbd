"""Arguments that several commands take, and the two kinds of error of a command."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from conformance.releases.prober import LOAD_SECONDS

TARGETS = (
    "a target is `current`, a release such as 4.57.6, requirements joined by commas such as "
    "transformers==5.0.0,accelerate==1.10.1, or python:PATH; a folder is a checkpoint"
)


# How many processes judge the suite's own cases at the same time.
PROCESSES = max(1, min(4, os.cpu_count() or 1))


class HarnessError(RuntimeError):
    """The command cannot reach a verdict: exit code 2."""


class UsageError(ValueError):
    """The arguments name something that does not exist: exit code 64."""


def positive(text: str) -> int:
    """A number of things, at least one.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)


def add_selection(parser: argparse.ArgumentParser) -> None:
    """The arguments `--case` and `--clause`, which several commands take."""
    parser.add_argument(
        "--case",
        action="append",
        default=[],
        metavar="GLOB",
        help="judge only cases whose id matches, such as 'tie/*'; repeatable",
    )
    parser.add_argument(
        "--clause",
        action="append",
        default=[],
        metavar="ID",
        help="judge only cases that cite this clause, such as TIE-1; repeatable",
    )


def add_report(parser: argparse.ArgumentParser) -> None:
    """The arguments `--format` and `--out`, which several commands take."""
    parser.add_argument(
        "--format",
        choices=("table", "markdown"),
        default="table",
        help="what to print: a table, or a comment for a pull request (default: table)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write the report to this folder (default: a new folder under runs/)",
    )


def add_timeout(parser: argparse.ArgumentParser) -> None:
    """The argument `--timeout`, which several commands take."""
    parser.add_argument(
        "--timeout",
        type=float,
        default=LOAD_SECONDS,
        metavar="SECONDS",
        help="stop a load that takes longer (default: %(default)s)",
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """The argument `--trust-remote-code`, which several commands take."""
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run the Python code that the checkpoint brings or names; without it, a checkpoint "
        "that needs its code is refused",
    )


def add_unjudged(parser: argparse.ArgumentParser) -> None:
    """The argument `--allow-unjudged`, which the commands that judge checkpoints take."""
    parser.add_argument(
        "--allow-unjudged",
        action="store_true",
        help="do not end with exit code 2 for what was not judged",
    )


def add_model_class(parser: argparse.ArgumentParser) -> None:
    """The argument `--model-class`, which the commands that load a checkpoint take."""
    parser.add_argument(
        "--model-class",
        "--model",
        dest="model_class",
        metavar="MODULE:ATTR",
        default="",
        help="the model class to load into, also one of your own in the working directory "
        "(default: the class that config.architectures names)",
    )
