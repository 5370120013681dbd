"""Verdicts on promises that a release's own classes keep or break: no loader can mend them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from conformance.cases.case import Case
from conformance.judge.divergences import TENSOR_KINDS
from conformance.judge.verdict import Judged, verdict
from conformance.results.records import DIVERGE, ERROR, Divergence, Observation
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
    ]
