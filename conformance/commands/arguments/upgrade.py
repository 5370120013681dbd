"""Arguments of the commands that tell what an upgrade changes."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from conformance.commands.arguments.shared import (
    TARGETS,
    add_model_class,
    add_report,
    add_selection,
    add_timeout,
    add_trust,
    add_unjudged,
    positive,
)
from conformance.judge.changes import DEFAULT_FAIL_ON, FAIL_ON


def compare(parser: argparse.ArgumentParser) -> None:
    """The arguments of `conformance compare`."""
    parser.add_argument("words", nargs="+", metavar="TARGET|CHECKPOINT", help=TARGETS)
    add_selection(parser)
    parser.add_argument(
        "--accept",
        type=Path,
        metavar="FILE",
        help="a TOML file of accepted changes, which do not fail the run",
    )
    parser.add_argument(
        "--fail-on",
        type=_words,
        default=DEFAULT_FAIL_ON,
        metavar="WORD,WORD",
        help="what fails the run with exit code 1: regressed, changed, fixed, or an impact of a "
        "difference in a checkpoint of yours, whichever release is right "
        f"(default: {','.join(DEFAULT_FAIL_ON)})",
    )
    add_unjudged(parser)
    parser.add_argument(
        "--measure",
        action="store_true",
        help="load each checkpoint in processes of its own, so that peak memory is that load's; "
        "slower",
    )
    parser.add_argument(
        "-j",
        "--jobs",
        type=positive,
        default=max(1, min(4, os.cpu_count() or 1)),
        metavar="N",
        help="how many targets are judged at the same time (default: %(default)s)",
    )
    add_model_class(parser)
    add_trust(parser)
    add_timeout(parser)
    add_report(parser)


def _words(text: str) -> tuple[str, ...]:
    """The words of `--fail-on`.

    Raises:
        argparse.ArgumentTypeError: one does not exist.
    """
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if unknown := [word for word in words if word not in FAIL_ON]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(FAIL_ON)}")
    return words


def bisect(parser: argparse.ArgumentParser) -> None:
    """The arguments of `conformance bisect`."""
    parser.add_argument(
        "case",
        metavar="CASE|CHECKPOINT",
        help="the id of a case, such as tie/different; or the folder of a checkpoint of yours",
    )
    parser.add_argument(
        "--form",
        default="as-saved",
        metavar="FORM",
        help="how the checkpoint is loaded, as `check CHECKPOINT` names it (default: %(default)s)",
    )
    parser.add_argument("--good", required=True, metavar="TARGET", help=TARGETS)
    parser.add_argument("--bad", required=True, metavar="TARGET", help="likewise")
    parser.add_argument(
        "--clause", metavar="ID", default="", help="count only divergences from this clause"
    )
    add_model_class(parser)
    add_trust(parser)
    add_timeout(parser)


def record(parser: argparse.ArgumentParser) -> None:
    """The arguments of `conformance record`."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder, or an id on the Hub")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", required=True, help="the JSON file to write"
    )
    add_model_class(parser)
    parser.add_argument(
        "--dtype",
        default="",
        help="`auto` or the name of a torch dtype (default: what the release does by itself)",
    )

    add_trust(parser)


def verify(parser: argparse.ArgumentParser) -> None:
    """The arguments of `conformance verify`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="written by `conformance record`")
    parser.add_argument(
        "checkpoint",
        nargs="?",
        metavar="CHECKPOINT",
        help="the checkpoint, if it is no longer where it was",
    )
    add_model_class(parser)
    add_trust(parser)
