"""Arguments of the commands that tell what is wrong, and help to report it."""

from __future__ import annotations

import argparse
from pathlib import Path

from conformance.commands.arguments.shared import (
    add_model_class,
    add_report,
    add_selection,
    add_trust,
    add_unjudged,
    positive,
)
from conformance.results.impacts import IMPACTS


def check(parser: argparse.ArgumentParser) -> None:
    """The arguments of `conformance check`."""
    parser.add_argument(
        "checkpoints",
        nargs="*",
        metavar="CHECKPOINT",
        help="a folder, or an id on the Hub; without any, the cases of the specification",
    )
    parser.add_argument(
        "--loader",
        default="stock",
        metavar="stock|reference|MODULE:ATTR",
        help="what to judge: a callable f(cls, path, **kwargs); cls may be None (default: stock)",
    )
    parser.add_argument(
        "--arch",
        action="append",
        default=[],
        metavar="GLOB",
        help="judge tiny checkpoints of these model types of the installed transformers, such as "
        "'qwen*', which are written first; repeatable",
    )
    add_selection(parser)
    add_model_class(parser)
    add_trust(parser)
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="where the models are loaded to (default: cpu)",
    )
    parser.add_argument(
        "-j",
        "--jobs",
        type=positive,
        metavar="N",
        help="how many processes judge at the same time; each holds a model (default: one for each "
        "core, at most 4, for the cases of the specification; 1 for a checkpoint)",
    )
    parser.add_argument(
        "--impact",
        action="append",
        default=[],
        choices=tuple(IMPACTS),
        metavar="IMPACT",
        help="show and record only results of this impact, and those without a verdict; the exit "
        f"code is theirs; repeatable. One of {', '.join(IMPACTS)}",
    )
    add_unjudged(parser)
    add_report(parser)


def explain(parser: argparse.ArgumentParser) -> None:
    """The arguments of `conformance explain`."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder, or an id on the Hub")
    parser.add_argument(
        "--check",
        action="store_true",
        help="show all that is wrong with the checkpoint; reads the weights; exit code 1 for an "
        "error, 2 if its tensors could not be held against the model",
    )
    parser.add_argument(
        "--revision", default="main", help="a branch, tag or commit on the Hub (default: main)"
    )
    add_model_class(parser)
    parser.add_argument(
        "--dtype", default="auto", help="`auto` or the name of a torch dtype (default: auto)"
    )
    parser.add_argument("--subfolder", default="", help="the folder inside the checkpoint")
    parser.add_argument("--variant", help="the variant of the weight files, such as fp16")
    parser.add_argument(
        "--ignore-mismatched-sizes",
        action="store_true",
        help="initialise parameters whose stored shape differs, instead of refusing the load",
    )
    parser.add_argument(
        "--device-map",
        metavar="WORD|DEVICE|JSON",
        help='such as auto, cuda:0, or {"model": 0, "lm_head": "cpu"}',
    )
    parser.add_argument(
        "--max-memory",
        metavar="0=24GiB,cpu=64GiB",
        default="",
        help="the memory of each device; says what fits and what would",
    )
    add_trust(parser)
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="(default: text)"
    )


def repro(parser: argparse.ArgumentParser) -> None:
    """The arguments of `conformance repro`."""
    parser.add_argument("case", metavar="CASE", help="the id of a case, such as tie/different")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", required=True, help="the folder to write; must be new"
    )


def render(parser: argparse.ArgumentParser) -> None:
    """The arguments of `conformance render`."""
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="the folder of a run, with its report.jsonl"
    )
    parser.add_argument(
        "--format",
        choices=("files", "markdown"),
        default="files",
        help="write report.html, junit.xml and badge.svg beside it, or print a comment for a "
        "pull request (default: files)",
    )


def spec(parser: argparse.ArgumentParser) -> None:
    """The arguments of `conformance spec`."""
    parser.add_argument(
        "word",
        nargs="?",
        metavar="ID",
        help="a clause (TIE-1), a stage (TIE) or a known deviation, in any letter case "
        "(default: a list of all clauses)",
    )
    parser.add_argument(
        "--format",
        choices=("text", "markdown", "bugs"),
        default="text",
        help="markdown renders docs/spec.md, bugs renders docs/bugs.md (default: text)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write to this file instead of the terminal"
    )
