"""What the commands share: their two kinds of error, and arguments that several of them take."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from conformance.cases.case import Case
from conformance.cases.catalogue import catalogue, on, own_cases, select
from conformance.releases.prober import LOAD_SECONDS, TargetUnusable
from conformance.releases.targets import BadTarget, TargetNotMade
from conformance.spec import clauses
from conformance_fixtures.tokens import BadToken
from reference_loader.errors import RemoteCodeRefused
from reference_loader.model.choose import choose
from reference_loader.options import Options
from reference_loader.source.checkpoint import open_folder

TARGETS = (
    "a target is `current`, a release such as 4.57.6, requirements joined by commas such as "
    "transformers==5.0.0,accelerate==1.10.1, or python:PATH; a folder is a checkpoint"
)


class HarnessError(RuntimeError):
    """The command cannot reach a verdict: exit code 2."""


class UsageError(ValueError):
    """The arguments name something that does not exist: exit code 64."""


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


def refuse_code(folder: Path, trusted: bool, model: type | None = None) -> None:
    """Refuse a checkpoint that needs its own code, before anything is loaded; else do nothing.

    Raises:
        RemoteCodeRefused: it needs its code, and the command line does not trust it.
    """
    if trusted:
        return
    try:
        choose(str(folder), folder, (), Options(model_class=model))
    except RemoteCodeRefused:
        raise
    except Exception:  # the load will report it
        return


def selected(
    checkpoints: Sequence[str | Path],
    patterns: Sequence[str],
    identifiers: Sequence[str],
    device: str = "cpu",
    *,
    trusted: bool = False,
) -> list[Case]:
    """The cases of the checkpoints, or of the fixtures, that `--case` and `--clause` select.

    Raises:
        UsageError: a clause does not exist, or no case is left.
        LoadError: a checkpoint does not exist.
    """
    known_clauses(identifiers)
    folders = [open_folder(each, subfolder="", options=Options()) for each in checkpoints]
    offered = [on(device, case) for case in own_cases(*folders, trusted=trusted)] or list(
        catalogue(device)
    )
    try:
        cases = select(offered, patterns, identifiers)
    except BadToken as error:
        raise UsageError(f"--case: {error}") from error
    if not cases:
        raise UsageError(f"no case matches {[*patterns, *identifiers]}")
    return cases


def one_case(pattern: str) -> Case:
    """The only case that the glob matches.

    Raises:
        UsageError: it matches none, or several.
    """
    cases = selected([], [pattern], [])
    if len(cases) > 1:
        raise UsageError(f"{pattern} matches {len(cases)} cases; give the id of one")
    return cases[0]


def known_clauses(identifiers: Sequence[str]) -> None:
    """Raise UsageError for a clause that does not exist."""
    for identifier in identifiers:
        if identifier not in clauses():
            raise UsageError(f"clause {identifier!r} does not exist; `conformance spec` lists all")


def model_class(name: str) -> type | None:
    """The class that `--model MODULE:ATTR` names; None for "".

    Raises:
        UsageError: there is no such class.
    """
    try:
        return Case("", (), model=name).model_class()
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--model {name}: {error}") from error


@contextmanager
def target_errors() -> Iterator[None]:
    """Errors of a target, as errors of the command line."""
    try:
        yield
    except BadTarget as error:
        raise UsageError(str(error)) from error
    except (TargetNotMade, TargetUnusable) as error:
        raise HarnessError(str(error)) from error
