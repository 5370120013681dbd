"""The catalogue of cases: every table, the selection from it, and cases on a user's checkpoint."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from conformance.cases import (
    cfg,
    dty,
    fmt,
    gpu,
    idx,
    inf,
    ini,
    map,
    mem,
    mis,
    off,
    out,
    plc,
    res,
    sta,
    tie,
    token_cases,
    use,
)
from conformance.cases.case import VALID, Case, Torch

STAGES = (res, idx, fmt, cfg, dty, ini, map, mis, tie, plc, off, inf, sta, mem, out, use)

CASES: tuple[Case, ...] = tuple(case for stage in STAGES for case in stage.CASES)


# The ids of all cases, whatever machine they need.
IDS: tuple[str, ...] = tuple(case.id for case in (*CASES, *gpu.CASES))

# What is loaded to a GPU as it is loaded to the CPU; the others are about places themselves, about
# the process, or about where random numbers come from.
ON_A_GPU = (idx, fmt, cfg, dty, ini, map, tie, inf, out)


def catalogue(device: str = "cpu") -> tuple[Case, ...]:
    """The cases of the device: for a GPU its own, and the others with the model loaded to it."""
    if device == "cpu":
        return CASES
    moved = (on(device, case) for stage in ON_A_GPU for case in stage.CASES if _movable(case))
    return (*gpu.CASES, *moved)


def _movable(case: Case) -> bool:
    return (
        case.input_class == VALID
        and "device_map" not in case.options
        and (case.hub, case.under, case.threads) == (None, (), 1)
    )


def on(device: str, case: Case) -> Case:
    """The case with its model loaded to the device."""
    if device == "cpu":
        return case
    return replace(case, device=device, options={**case.options, "device_map": device})


def select(cases: Iterable[Case], patterns: Iterable[str], clauses: Iterable[str]) -> list[Case]:
    """The cases whose id matches one of the globs and that cite one of the clauses, if given.

    A pattern that begins with `drawn/` is no glob but the id of a case that no table holds.

    Raises:
        BadToken: see `token_cases.load_of`.
    """
    patterns, wanted = list(dict.fromkeys(patterns)), set(clauses)
    own = [token_cases.case_of(each) for each in patterns if each.startswith(token_cases.PREFIX)]
    return [
        case
        for case in (*cases, *own)
        if (not patterns or any(fnmatch.fnmatchcase(case.id, glob) for glob in patterns))
        and (not wanted or wanted & set(case.clauses))
    ]


def own_cases(*folders: Path, trusted: bool = False) -> list[Case]:
    """Every case that applies to a user's checkpoints, each named after its folder.

    Args:
        folders: the checkpoints.
        trusted: whether their code may run.
    """
    names = [_name(folder.resolve()) for folder in folders]
    numbered = [
        f"{name}-{names[: i + 1].count(name)}" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]
    cases = [case for pair in zip(folders, numbered, strict=True) for case in _own_cases(*pair)]
    trust = {"trust_remote_code": True} if trusted else {}
    return [replace(case, options={**case.options, **trust}) for case in cases]


def _name(folder: Path) -> str:
    """The folder's, or the repository's that the folder is a snapshot of in the Hub's cache."""
    repository = folder.parents[1].name if folder.parent.name == "snapshots" else ""
    return repository.rpartition("--")[2] or folder.name


def _own_cases(folder: Path, name: str) -> list[Case]:
    classes = {
        "as-saved": "",
        "base": "transformers:AutoModel",
        "other-head": "transformers:AutoModelForSequenceClassification",
    }
    clauses = ("MAP-1", "DTY-1", "INF-1", "INF-2", "INF-3", "OUT-1", "OUT-3", "CFG-8")
    return [
        *(
            Case(f"own/{name}/{form}", clauses, "", model=model, folder=folder, greedy=True)
            for form, model in classes.items()
        ),
        *(
            Case(
                f"own/{name}/{dtype}",
                ("DTY-3", "DTY-7", "OUT-1"),
                "",
                model="",
                folder=folder,
                options={"dtype": Torch(dtype)},
            )
            for dtype in ("bfloat16", "float16")
        ),
    ]
