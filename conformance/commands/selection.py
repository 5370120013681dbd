"""What the arguments of a command select: checkpoints, a model class, cases."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch

from conformance.cases.architectures import architecture_cases
from conformance.cases.case import Case
from conformance.cases.catalogue import catalogue, on, select
from conformance.cases.own import NO_CHECKPOINT, Own, own_cases
from conformance.commands.arguments.shared import PROCESSES, HarnessError, UsageError
from conformance.releases.prober import TargetUnusable
from conformance.releases.targets import BadTarget, TargetNotMade
from conformance.report.console import progress
from conformance.spec import clauses
from conformance.world.architectures.build import NotBuilt, write
from conformance.world.architectures.types import ModelType, model_types
from conformance.world.messages import quiet
from conformance_fixtures.tokens import BadToken
from reference_loader.errors import RemoteCodeRefused
from reference_loader.model.choose import choose
from reference_loader.options import Options
from reference_loader.source.checkpoint import open_folder


def own_of(checkpoints: Sequence[str | Path], model: str = "", *, trusted: bool = False) -> Own:
    """The user's checkpoints, by the arguments of a command.

    Raises:
        UsageError: there is no such model class.
        LoadError: a checkpoint does not exist.
    """
    model_class(model)
    folders = [open_folder(each, subfolder="", options=Options()) for each in checkpoints]
    return Own(tuple(folders), model, trusted, str(Path.cwd()) if model else "")


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


def of_architectures(patterns: Sequence[str], folder: Path) -> list[Case]:
    """The cases on tiny checkpoints of the model types that `--arch` names, written in `folder`.

    A type that cannot be built here is named on stderr, with the reason.

    Raises:
        UsageError: no model type of the installed release matches.
    """
    chosen = model_types(patterns)
    if not chosen:
        raise UsageError(f"--arch: no model type of transformers matches {list(patterns)}")
    # In processes apart: those that judge are forked of this one, which must not have used torch.
    fork = multiprocessing.get_context("fork")
    folders = {name: folder / name for name in chosen}
    with ProcessPoolExecutor(min(PROCESSES, len(chosen)), fork) as pool:
        found = pool.map(_why_not_built, chosen.values(), folders.values())
        reasons = dict(zip(chosen, progress(found, len(chosen)), strict=True))
    for name, reason in reasons.items():
        if reason:
            print(f"not built: {name}: {reason}", file=sys.stderr)
    return architecture_cases({n: each for n, each in folders.items() if not reasons[n]})


def _why_not_built(model_type: ModelType, folder: Path) -> str:
    """Write the tiny checkpoint of a model type; why there is none, "" if there is one."""
    torch.set_num_threads(1)
    with quiet():
        try:
            write(model_type, folder)
        except NotBuilt as reason:
            return str(reason)
    return ""


def selected(
    own: Own,
    patterns: Sequence[str],
    identifiers: Sequence[str],
    device: str = "cpu",
    architectures: Sequence[Case] = (),
) -> list[Case]:
    """The cases that `--case` and `--clause` select of those of the checkpoints and of the model
    types, or of the fixtures.

    Raises:
        UsageError: a clause does not exist, or no case is left.
    """
    known_clauses(identifiers)
    given = [*own_cases(own), *architectures]
    offered = [on(device, case) for case in given] or list(catalogue(device))
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
    cases = selected(NO_CHECKPOINT, [pattern], [])
    if len(cases) > 1:
        raise UsageError(f"{pattern} matches {len(cases)} cases; give the id of one")
    return cases[0]


def known_clauses(identifiers: Sequence[str]) -> None:
    """Raise UsageError for a clause that does not exist."""
    for identifier in identifiers:
        if identifier not in clauses():
            raise UsageError(f"clause {identifier!r} does not exist; `conformance spec` lists all")


def model_class(name: str) -> type | None:
    """The class that `--model-class MODULE:ATTR` names; None for "".

    The working directory is searched last, and only for the user who names a class.

    Raises:
        UsageError: there is no such class.
    """
    if name and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        return Case("", (), model=name).model_class()
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--model-class {name}: {error}") from error


@contextmanager
def target_errors() -> Iterator[None]:
    """Errors of a target, as errors of the command line."""
    try:
        yield
    except BadTarget as error:
        raise UsageError(str(error)) from error
    except (TargetNotMade, TargetUnusable) as error:
        raise HarnessError(str(error)) from error
