"""Absolute checks: an observation against stored bytes and formulas, one file a stage.

The reference builds the classes of the installed transformers, so comparing alone cannot see a
fault that both share. A check is a pure function of a case, its checkpoint and an observation. It
belongs to one or more clauses and runs in the cases that cite them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from conformance.cases.case import VALID, Case
from conformance.judge.checks import (
    cnv,
    dty,
    fmt,
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
    sta,
    tie,
    use,
)
from conformance.judge.checks.evidence import Check, Evidence
from conformance.results.records import Divergence, Observation
from conformance.spec import clauses

STAGES = (res, fmt, dty, ini, map, cnv, mis, tie, plc, off, inf, sta, mem, out, use, sav)

CHECKS: dict[str, Check] = {
    clause: found
    for stage in STAGES
    for found in vars(stage).values()
    if isinstance(found, Check)
    for clause in found.clauses
}

# Runs in every case.
ALWAYS = "INI-4"


def objections(
    case: Case, observation: Observation, baseline: Observation | None = None
) -> tuple[Divergence, ...]:
    """What the checks of the case's clauses object to.

    Args:
        case: only valid input is held against formulas.
        observation: what a load of it left.
        baseline: what the reference leaves of `baseline(case)`, where there is such a case.
    """
    if case.input_class != VALID:
        return ()
    found: list[Divergence] = []
    for clause, check in CHECKS.items():
        runs = clause in case.clauses or clause == ALWAYS
        if runs and (check.of_failed_loads or observation.exception is None):
            evidence = Evidence(case, case.source(), observation, baseline)
            found += (replace(each, clause=clause) for each in _run(clause, check, evidence))
    return tuple(found)


def _run(clause: str, check: Check, evidence: Evidence) -> Iterator[Divergence]:
    try:
        yield from check.objections(evidence)
    except Exception as cause:  # a model of which a check finds no facts breaks its clause
        told = f"{type(cause).__name__}: {cause}"
        kind = clauses()[clause].kinds[0]
        yield Divergence(kind, "(check)", "a model that can be checked", told)
