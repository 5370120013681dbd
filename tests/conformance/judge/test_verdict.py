"""Verdicts on promises that a release's own classes keep or break: no loader can mend them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance.cases.case import Case
from conformance.judge.divergences import TENSOR_KINDS
from conformance.judge.verdict import Judged, verdict
from conformance.results.records import (
    AGREE,
    DIVERGE,
    ERROR,
    SKIP,
    Divergence,
    Observation,
)
from conformance.spec import clauses

JUDGED = Judged("mine", "5.0.0", "current")
LOST = {"types": ["AttributeError", "Exception", "BaseException"], "message": "no pad_token_id"}
OTHER = {"types": ["AttributeError", "Exception", "BaseException"], "message": "no such thing"}


FACTS = dict.fromkeys(TENSOR_KINDS, "") | {"device": "cpu"}
STATE = {"before": {}, "after": {}}


def judged(clause: str, expected: Observation, actual: Observation) -> Any:
    return verdict(Case("cfg/x", (clause,)), expected, actual, JUDGED, "")


@pytest.mark.parametrize(
    ("clause", "actual", "status"),
    [("CFG-22", LOST, DIVERGE), ("CFG-22", OTHER, ERROR), ("CFG-1", LOST, ERROR)],
)
def test_the_same_error_of_the_class_is_laid_to_the_release(
    clause: str, actual: Mapping[str, Any], status: str
) -> None:
    """Only where the case is about a borrowed promise, and where both loaders meet it."""
    result = judged(clause, Observation(exception=LOST), Observation(exception=actual))
    assert result.status == status
    if status == DIVERGE:
        (found,) = result.divergences
        assert (found.clause, found.kind) == (clause, "rejected")
        assert "no pad_token_id" in found.actual


@pytest.mark.parametrize(("clause", "status"), [("TIE-11", DIVERGE), ("TIE-1", ERROR)])
def test_what_both_leave_wrong_is_laid_to_the_release(clause: str, status: str) -> None:
    found = Divergence("tie", "lm_head.weight", "the embedding", "its own", clause)
    tensors = {name: FACTS | {"storage": name} for name in ("shared.weight", "lm_head.weight")}
    left = Observation(tensors=tensors, config={"model_type": "t5"}, state=STATE)
    result = judged(clause, left, replace(left, seconds=1.0))
    assert result.status == status
    kept = (replace(found, impact="wrong-model"),)
    assert (result.divergences == kept) == (status == DIVERGE)


def test_the_error_of_the_class_may_be_the_cause_of_ours() -> None:
    told = "PhiForCausalLM does not accept the config: AttributeError: no pad_token_id"
    ours = Observation(exception={"types": ["BadConfig", "LoadError"], "message": told})

    assert judged("CFG-22", ours, Observation(exception=LOST)).status == DIVERGE
    assert judged("CFG-22", ours, Observation(exception=OTHER)).status == ERROR


def test_few_promises_are_borrowed() -> None:
    """Each is held by a check of its own, or by the class failing altogether.

    The reference gives its models stock's own methods to save, resize and copy with: what those
    do wrong, they do to both.
    """
    assert [each.id for each in clauses().values() if each.borrowed] == [
        "CFG-22",
        "TIE-11",
        "USE-18",
        *(f"SAV-{number}" for number in range(1, 8)),
    ]


# --- a checkpoint that was not made here ---

LOGITS = {"dtype": "torch.float32", "shape": [1, 2], "fingerprint": "one"}
MOVED = LOGITS | {"fingerprint": "another"}
FIRST, LAST = [1.0, 2.0], [1.0, 2.0 + 2.0**-22]
ABSENT = {"types": ["NothingMatches", "LoadError"], "message": "None of the 2 stored keys"}


def of_a_user(expected: Observation, actual: Observation, *cited: str) -> Any:
    case = Case("own/mine/as-saved", cited or ("OUT-1",), "", folder=Path("mine"))
    return verdict(case, expected, actual, JUDGED, "")


@pytest.mark.parametrize(
    ("logits", "outputs", "status"),
    [
        (LAST, {"logits": MOVED}, AGREE),
        ([1.0, 2.1], {"logits": MOVED}, DIVERGE),
        ([1.0, math.nan], {"logits": MOVED}, DIVERGE),
        ([1.0, math.inf], {"logits": MOVED}, DIVERGE),
        (LAST, {"logits": MOVED | {"dtype": "torch.float16"}}, DIVERGE),
        (LAST, {"logits": MOVED, "tokens": [1]}, DIVERGE),
        (None, {"logits": MOVED}, DIVERGE),
        (LAST, {"exception": "RuntimeError: no"}, DIVERGE),
    ],
)
def test_its_outputs_are_held_to_rounding(logits: Any, outputs: Any, status: str) -> None:
    left = Observation(outputs={"logits": LOGITS}, logits=FIRST, state=STATE)
    found = replace(left, outputs=outputs, logits=logits)

    assert of_a_user(left, found).status == status
    assert judged("OUT-1", left, found).status == DIVERGE, "one of ours is held to the bit"


def test_what_other_random_weights_compute_is_no_divergence_of_its_own() -> None:
    info = {"missing_keys": {"values": ["head"]}}
    tensors = {"head": FACTS | {"fingerprint": "one"}, "body": FACTS | {"fingerprint": "one"}}
    left = Observation(tensors=tensors, info=info, outputs={"logits": LOGITS}, state=STATE)

    def other(name: str) -> Any:
        changed = {**tensors, name: tensors[name] | {"fingerprint": "another"}}
        found = replace(left, tensors=changed, outputs={"logits": MOVED})
        return [(each.kind, each.where) for each in of_a_user(left, found).divergences]

    assert other("head") == [("values", "head")]
    assert other("body") == [("values", "body"), ("output", "logits")]


@pytest.mark.parametrize("ours", [{"exception": "RuntimeError: meta"}, {"logits": MOVED}])
@pytest.mark.parametrize("theirs", [{"exception": "RuntimeError: meta"}, {"logits": MOVED}])
def test_a_class_that_never_runs_from_disk_is_told_as_such(ours: Any, theirs: Any) -> None:
    in_memory = Observation(outputs={"logits": LOGITS}, logits=FIRST, state=STATE)
    case = Case("own/mine/disk-offload", ("OFF-1",), "", folder=Path("mine"))

    def found(expected: Any, actual: Any) -> Any:
        both = (replace(in_memory, outputs=each, logits=None) for each in (expected, actual))
        return verdict(case, *both, JUDGED, "", baseline=in_memory)

    (divergence,) = found(ours, theirs).divergences
    assert (divergence.clause, divergence.kind, divergence.where) == ("OFF-1", "output", "forward")
    assert found(in_memory.outputs, theirs).status == DIVERGE
    assert "forward" not in {each.where for each in found(in_memory.outputs, theirs).divergences}
    assert found(ours, in_memory.outputs).status == ERROR, "the reference alone is wrong"
    tensors = {"body": FACTS}
    changed = {"body": FACTS | {"fingerprint": "another"}}
    left = replace(in_memory, outputs=ours, logits=None, tensors=tensors)
    other = replace(left, tensors=changed)
    told = verdict(case, left, other, JUDGED, "", baseline=in_memory).divergences
    assert [each.kind for each in told] == ["output", "values"], "the rest is judged"


def test_a_random_model_is_one_where_the_reference_refuses() -> None:
    refused = Observation(exception=ABSENT, state=STATE)
    (found,) = of_a_user(refused, Observation(state=STATE)).divergences
    assert (found.clause, found.kind, found.impact) == ("MAP-7", "accepted", "accepts-bad")
    assert of_a_user(refused, refused).status == ERROR, "there is no model to judge"


@pytest.mark.parametrize(("case", "status"), [("arch/x/base", SKIP), ("own/x/base", ERROR)])
def test_what_the_reference_does_not_support_is_not_judged(case: str, status: str) -> None:
    """Of a model type it is skipped with the reason; a user is told that there is no verdict."""
    told = {"types": ["UnsupportedOption", "LoadError"], "message": "its own from_pretrained"}
    refused = Observation(exception=told, state=STATE)
    asked = Case(case, ("MAP-1",), "", folder=Path("mine"))

    result = verdict(asked, refused, Observation(state=STATE), JUDGED, "")
    assert result.status == status
    assert "its own from_pretrained" in result.reason
