"""The catalogue of cases: every table, and the selection from it."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import replace

from conformance.cases import (
    cfg,
    cnv,
    combo,
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
    sav,
    shapes,
    sta,
    tie,
    token_cases,
    use,
)
from conformance.cases.case import VALID, Case

STAGES = (
    *(res, idx, fmt, cfg, dty, ini, map, cnv, mis, tie, plc, off, inf, sta, mem, out, use, sav),
    *(combo, shapes),
)

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
    # Which NaN a cast makes of a NaN is the device's: `gpu.CASES` has such casts without NaN.
    cast_nan = "extreme-values" in case.faults and "dtype" in case.options
    return (
        not cast_nan
        and case.input_class == VALID
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
