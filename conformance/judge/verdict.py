"""From the observations of a case to its verdict: a pure function of them and the checkpoint.

Whoever needs a verdict calls `verdict`: `check`, `compare`, `selftest` and `repro`. It compares by
`divergences.compare`, as `changes.change` does, which `compare` and `verify` call.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from conformance.cases.case import ACCEPTABLE, INVALID, Case
from conformance.deviations import ARCH, deviations, known
from conformance.judge.checks import objections
from conformance.judge.divergences import compare
from conformance.judge.moved_outputs import only_rounded
from conformance.results.impacts import gravest, of_kind
from conformance.results.records import (
    AGREE,
    DIVERGE,
    ERROR,
    KNOWN,
    SKIP,
    Divergence,
    KnownDeviation,
    Observation,
    Result,
)
from conformance.spec import clause_for, clauses

# What the reference may raise: an error of its own, one of a model class of ours (STA-6), or what
# Python raises on SIGINT (STA-16).
OURS = frozenset({"LoadError", "OwnError", "KeyboardInterrupt"})

# The stages whose clauses on values are about stored tensors.
STORED = ("RES", "IDX", "FMT", "DTY", "MAP", "CNV", "TIE", "PLC", "OFF")


@dataclass(frozen=True)
class Judged:
    """The judged loader, the release of transformers, and the target it runs in."""

    loader: str
    release: str
    target: str


def verdict(
    case: Case,
    expected: Observation,
    actual: Observation,
    judged: Judged,
    rerun: str,
    *,
    baseline: Observation | None = None,
) -> Result:
    """The verdict on what a loader left.

    Args:
        case: what was loaded.
        expected: what the reference leaves of it.
        actual: what the judged loader leaves.
        judged: the judged loader.
        rerun: the line that reruns just this case.
        baseline: what the reference leaves of `baseline(case)`, if there is such a case.
    """
    result = blank(case, judged, rerun)
    if (unfit := _not_applicable(case, expected) or _drawn(case, expected)) is not None:
        return replace(result, status=SKIP, reason=unfit)
    divergences = _class_fails(case, expected, actual) or _random_model(case, expected, actual)
    if not divergences:
        offloaded = _never_offloaded(case, baseline, expected, actual)
        broken = _but_rounding(case, baseline, expected, objections(case, expected, baseline))
        if offloaded:  # its outputs say nothing of a loader, the rest does
            broken = tuple(each for each in broken if each.kind != "output")
        if (unfit := _reference_fails(case, expected, broken)) is not None:
            refused = case.id.startswith(ARCH) and _unsupported(expected)
            return replace(result, status=SKIP if refused else ERROR, reason=unfit)
        found = objections(case, actual, baseline)
        # What an absolute check objects to needs no second mention by comparison.
        seen = {(d.kind, d.where) for d in found}
        differences = compare(
            expected, actual, case.names, case.input_class == ACCEPTABLE, case.clauses
        )
        divergences = (*found, *(d for d in differences if (d.kind, d.where) not in seen))
        if offloaded:
            rest = (each for each in divergences if each.kind != "output")
            divergences = (*offloaded, *rest)
    divergences = _of_fresh(expected, divergences)
    divergences = _but_rounding(case, expected, actual, divergences)
    if case.folder is not None:
        divergences = _without_outputs_of_fresh(expected, divergences)
    if case.folder is not None and case.threads > 1:
        divergences = _of_a_race(case, divergences)
    result = replace(result, divergences=divergences, digest=digest(actual))
    return classified(result, judged)


def ended(result: Result, judged: Judged, kind: str, told: str) -> Result:
    """The verdict on a load that left nothing to observe: the process ended, or did not answer.

    Args:
        result: that of `blank`.
        judged: the judged loader.
        kind: `crash`, `hang` or `no-model`.
        told: what happened.
    """
    clause = clause_for(kind, result.clauses, "(load)")
    wanted = "a model, or an exception"
    found = Divergence(kind, "(load)", wanted, told, clause)
    return classified(replace(result, divergences=(found,)), judged)


def _of_fresh(expected: Observation, found: Sequence[Divergence]) -> tuple[Divergence, ...]:
    """Other values of a tensor that no file holds break the clause on fresh weights, whatever the
    case is about: none on stored ones."""
    info = expected.info or {}
    missing = set(info.get("missing_keys", {}).get("values", ()))
    return tuple(
        replace(d, clause="MIS-2")
        if d.kind == "values" and d.where in missing and clauses()[d.clause].stage in STORED
        else d
        for d in found
    )


def _without_outputs_of_fresh(
    expected: Observation, found: Sequence[Divergence]
) -> tuple[Divergence, ...]:
    """Where a weight that no file holds has other numbers, so has what is computed with it: that is
    no divergence of its own."""
    missing = set((expected.info or {}).get("missing_keys", {}).get("values", ()))
    if not any(each.kind == "values" and each.where in missing for each in found):
        return tuple(found)
    return tuple(each for each in found if each.kind != "output")


def _but_rounding(
    case: Case, expected: Observation | None, actual: Observation, found: Sequence[Divergence]
) -> tuple[Divergence, ...]:
    """On a checkpoint that was not made here outputs are held to rounding, on ours to the bit."""
    if case.folder is None or expected is None or not only_rounded(expected, actual):
        return tuple(found)
    return tuple(each for each in found if each.kind != "output")


def _of_a_race(case: Case, found: Sequence[Divergence]) -> tuple[Divergence, ...]:
    """What several loads at once leave of a user's checkpoint, as one divergence: which tensors a
    race spoils is another thing each time."""
    if not found:
        return ()
    first = f"{len(found)} facts differ, the first: {found[0].kind} of {found[0].where}"
    place = f"thread 1 of {case.threads}"
    return (Divergence("values", place, "the model loaded alone", first, "STA-3"),)


def classified(result: Result, judged: Judged) -> Result:
    """The result with the status and impact that its divergences have by what is known today."""
    if not result.divergences:
        return result
    covering = None
    if judged.loader != "reference":
        covering = known(result.divergences, result.case, judged.release, deviations())
    if covering is None:
        divergences = tuple(
            replace(each, impact=of_kind(each.kind), deviation="") for each in result.divergences
        )
        fields: dict[str, Any] = {"status": DIVERGE, "deviation": None, "reason": ""}
        return _with_impact(replace(result, **fields, deviations=(), divergences=divergences))
    divergences = tuple(
        replace(each, impact=by.impact, deviation=by.id)
        for each, by in zip(result.divergences, covering, strict=True)
    )
    listed: dict[str, KnownDeviation] = {}
    for each in covering:
        listed.setdefault(each.id, each)
    fields = {"status": KNOWN, "deviation": ", ".join(listed), "reason": covering[0].reason}
    fields |= {"deviations": tuple(listed.values()), "divergences": divergences}
    return _with_impact(replace(result, **fields))


def _with_impact(result: Result) -> Result:
    return replace(result, impact=gravest(each.impact for each in result.divergences))


def blank(case: Case, judged: Judged, rerun: str) -> Result:
    """The result of a case before it is judged."""
    return Result(case.id, case.clauses, case.input_class, judged.target, AGREE, rerun=rerun)


def _not_applicable(case: Case, expected: Observation) -> str | None:
    """A head that the release does not have for the checkpoint is not judged in it."""
    exception = expected.exception
    if exception is not None and case.optional and "UnknownModelClass" in exception["types"]:
        return str(exception["message"])
    return None


def _drawn(case: Case, expected: Observation) -> str | None:
    """On a GPU, weights that are drawn at random: no clause says which generator draws them."""
    before, after = (expected.state.get(when, {}).get("rng") for when in ("before", "after"))
    if case.device == "cpu" or before == after:
        return None
    fields, info = ("missing_keys", "mismatched_keys"), expected.info or {}
    fresh = [name for field in fields for name in info.get(field, {}).get("values", ())]
    return f"drawn at random, on the GPU or not: {', '.join(fresh) or 'a missing weight'}"


def _unsupported(expected: Observation) -> bool:
    """Whether the reference says that it does not support the load."""
    types = set((expected.exception or {}).get("types", ()))
    return bool(types & {"UnsupportedOption", "UnsupportedConversion", "BadOptions"})


def _class_fails(case: Case, expected: Observation, actual: Observation) -> tuple[Divergence, ...]:
    """The case is about a clause that the release's own class breaks: the class raises.

    Both loaders then raise the same error: the reference's names it as its cause.
    """
    ours, theirs = expected.exception, actual.exception
    if not clauses()[case.clauses[0]].borrowed or ours is None or theirs is None:
        return ()
    told = f"{theirs['types'][0]}: {theirs['message']}"
    if ours != theirs and told not in ours["message"]:
        return ()
    return (Divergence("rejected", "(load)", "a model", told, case.clauses[0]),)


def _never_offloaded(
    case: Case, baseline: Observation | None, expected: Observation, actual: Observation
) -> tuple[Divergence, ...]:
    """The class does not compute with its weights on disk what it does in memory, whatever loads
    it: its forward uses a weight of a module that it does not call."""
    if case.folder is None or "OFF-1" not in case.clauses or baseline is None:
        return ()
    if expected.exception or actual.exception:
        return ()
    for offloaded in (expected, actual):
        if baseline.outputs == offloaded.outputs or only_rounded(baseline, offloaded):
            return ()
    told = actual.outputs.get("exception", "other outputs")
    return (Divergence("output", "forward", "what it computes in memory", told, "OFF-1"),)


def _random_model(case: Case, expected: Observation, actual: Observation) -> tuple[Divergence, ...]:
    """Nothing of the checkpoint belongs to the model; a loader returns one all the same."""
    refused = "NothingMatches" in (expected.exception or {}).get("types", ())
    if case.folder is None or not refused or actual.exception is not None:
        return ()
    return (
        Divergence("accepted", "(load)", "NothingMatches", "a model of random weights", "MAP-7"),
    )


def _reference_fails(case: Case, expected: Observation, broken: Sequence[Divergence]) -> str | None:
    """Why there is nothing to judge against: the reference itself breaks a clause."""
    exception = expected.exception
    for found in broken:
        if not clauses()[found.clause].borrowed:
            told = f"{found.kind} of {found.where}: {found.expected} expected, {found.actual} found"
            return f"the reference breaks {found.clause}: {told}"
    if (exception is not None) != (case.input_class == INVALID):
        told = f"{exception['types'][0]}: {exception['message']}" if exception else "no error"
        if case.folder is not None:
            return f"the reference refuses it: {told}"
        return f"the reference, given {case.input_class} input: {told}"
    if exception is not None:
        unnamed = [name for name in case.names if name not in exception["message"]]
        if unnamed or not OURS & set(exception["types"]):
            return f"the reference's error {exception} does not name {unnamed}"
    return None


def digest(observation: Observation) -> str:
    """A digest of all that a load left, without time, memory and the process before it."""
    plain = replace(
        observation,
        seconds=0.0,
        peak_bytes=0,
        resident_bytes=None,
        state=_changed(observation),
    )
    facts: Mapping[str, Any] = asdict(plain)
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _changed(observation: Observation) -> dict[str, dict[str, Any]]:
    """Of the process's state what the load changed, and the RNG state afterwards."""
    before, after = (observation.state.get(when, {}) for when in ("before", "after"))
    names = [name for name in after if before.get(name) != after[name]]
    return {"changed": dict.fromkeys(sorted(names)), "after": {"rng": after.get("rng")}}
