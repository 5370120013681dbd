"""`conformance spec`: show the clauses of the specification."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from conformance.commands.arguments import known_clauses
from conformance.commands.specification import as_markdown, as_text
from conformance.deviations import bugs
from conformance.spec import clauses


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `conformance spec`."""
    parser.add_argument(
        "clause", nargs="?", metavar="ID", help="a clause, such as TIE-1 (default: all)"
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


def run(options: argparse.Namespace) -> int:
    """Show them; the exit code."""
    if options.clause:
        known_clauses([options.clause])
        text = as_text(clauses()[options.clause]) + "\n"
    elif options.format == "markdown":
        text = as_markdown()
    elif options.format == "bugs":
        text = bugs.as_markdown()
    else:
        text = "".join(f"{c.id:<7} {c.level:<8} {c.title}\n" for c in clauses().values())
    if options.out:
        options.out.write_text(text, "utf-8")
    else:
        sys.stdout.write(text)
    return 0
