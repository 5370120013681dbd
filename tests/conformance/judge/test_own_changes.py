"""What changes on own checkpoints: refusals, renames, fresh weights, races, exit codes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance.cases.case import Case
from conformance.judge.changes import (
    BOTH,
    CHANGED,
    FIRST,
    FIXED,
    NOT_JUDGED,
    REGRESSED,
    SECOND,
    UNCHANGED,
    Outcome,
    change,
    changes,
    exit_code,
)
from conformance.judge.renames import RENAMED
from conformance.results.records import (
    AGREE,
    DIVERGE,
    ERROR,
    KNOWN,
    SKIP,
    Divergence,
    Observation,
    Result,
)

OWN = Case("own/mine/as-saved", ("MAP-1", "DTY-1"), "", folder=Path("mine"))
FIELDS = {
    "kind": "parameter",
    "class": "Parameter",
    "persistent": True,
    "dtype": "torch.float32",
    "shape": [4],
    "stride": [1],
    "device": "cpu",
    "requires_grad": True,
}


def tensors(**fingerprints: str) -> dict[str, dict[str, Any]]:
    return {
        name.replace("__", "."): {**FIELDS, "storage": name, "fingerprint": print_}
        for name, print_ in fingerprints.items()
    }


def info(*missing: str) -> dict[str, Any]:
    return {"missing_keys": {"container": "list", "values": list(missing)}}


SEEN = Observation(tensors=tensors(tower__a__weight="1", tower__b__weight="2"), info=info())


def outcome(
    status: str = AGREE,
    *divergences: Divergence,
    seen: Observation | None = SEEN,
    target: str = "1.0",
    reason: str = "",
    case: Case = OWN,
) -> Outcome:
    result = Result(case.id, case.clauses, "valid", target, status, divergences, reason=reason)
    return Outcome(case, result, seen)


REFUSED = {"status": ERROR, "reason": "the reference refuses it: quantised"}


@pytest.mark.parametrize("pair", [(REFUSED, REFUSED), (REFUSED, {}), ({}, REFUSED)])
def test_what_the_reference_refuses_is_not_judged_though_stock_leaves_the_same(
    pair: tuple[dict[str, str], dict[str, str]],
) -> None:
    found = change(*(outcome(**fields) for fields in pair))
    assert found.change == NOT_JUDGED
    assert "the reference refuses it: quantised" in found.reason
    assert exit_code([found]) == 2
    assert exit_code([found], allow_unjudged=True) == 0


def test_where_the_reference_refuses_stock_is_still_held_against_stock() -> None:
    other = replace(SEEN, tensors=tensors(tower__a__weight="1", tower__b__weight="9"))
    found = change(outcome(**REFUSED), outcome(**REFUSED, seen=other))
    assert (found.change, found.divergences[0].where) == (CHANGED, "tower.b.weight")
    assert found.divergences[0].right == ""
    assert found.reason
    assert exit_code([found], allow_unjudged=True) == 1


def test_a_head_that_no_release_has_is_no_case_and_one_that_is_gone_is_told() -> None:
    head = replace(OWN, id="own/mine/masked-lm", optional=True)
    none = outcome(SKIP, case=head, reason="no such head")
    assert changes([none], [none]) == []
    (gone,) = changes([outcome(case=head)], [none])
    assert (gone.change, gone.reason) == ("removed", "1.0: no such head")


def test_a_level_that_vanishes_is_one_rename_with_equal_values() -> None:
    after = replace(SEEN, tensors=tensors(a__weight="1", b__weight="2"))
    found = change(outcome(), outcome(seen=after))
    assert found.change == CHANGED
    (renamed,) = found.divergences
    assert (renamed.kind, renamed.expected, renamed.actual) == (RENAMED, "tower.*", "*")
    assert renamed.detail.startswith("2 tensors, values equal")


def test_a_name_with_other_values_is_no_rename() -> None:
    after = replace(SEEN, tensors=tensors(a__weight="8", b__weight="9"))
    found = change(outcome(), outcome(seen=after))
    assert {each.kind for each in found.divergences} == {"kind-of-tensor"}


def test_random_weights_of_two_releases_may_differ() -> None:
    before = replace(SEEN, info=info("tower.b.weight"), outputs={"logits": 1})
    after = replace(
        before,
        tensors=tensors(tower__a__weight="1", tower__b__weight="9"),
        outputs={"logits": 2},
    )
    assert change(outcome(seen=before), outcome(seen=after)).change == UNCHANGED
    stored = replace(after, info=info())
    assert change(outcome(seen=before), outcome(seen=stored)).change == CHANGED


def test_containers_and_class_names_are_counted_and_no_change() -> None:
    before = replace(SEEN, modules={"": ("Old", False)})
    after = replace(SEEN, modules={"": ("New", False)}, info={})
    after = replace(after, info={"missing_keys": {"container": "set", "values": []}})
    found = change(outcome(seen=before), outcome(seen=after))
    assert (found.change, found.divergences, found.folded) == (UNCHANGED, (), 2)


VALUES = Divergence("values", "tower.a.weight", "1", "9", "MAP-1")
LISTS = Divergence("config", "missing_keys", "set", "list", "INF-1")
WRONG = replace(SEEN, tensors=tensors(tower__a__weight="9", tower__b__weight="2"))


def test_what_is_broken_anew_regresses_even_if_the_case_was_known_before() -> None:
    before, after = outcome(KNOWN, LISTS), outcome(KNOWN, LISTS, VALUES, seen=WRONG)
    found = change(before, after)
    assert (found.change, found.divergences[0].right) == (REGRESSED, FIRST)


def test_what_is_fixed_but_changes_the_model_still_fails_the_run() -> None:
    found = change(outcome(KNOWN, VALUES, seen=WRONG), outcome())
    assert (found.change, found.divergences[0].right) == (FIXED, SECOND)
    assert exit_code([found]) == 1
    assert exit_code([found], ("regressed",)) == 0
    assert exit_code([replace(found, case="map/x")]) == 0
    assert exit_code([replace(found, accepted="we know")]) == 0


def test_a_difference_that_breaks_nothing_is_right_in_both() -> None:
    found = change(outcome(), outcome(seen=WRONG))
    assert found.divergences[0].right == BOTH


@pytest.mark.parametrize(
    ("first", "second", "word"),
    [
        (AGREE, KNOWN, UNCHANGED),
        (KNOWN, AGREE, UNCHANGED),
        (AGREE, DIVERGE, REGRESSED),
        (DIVERGE, AGREE, FIXED),
    ],
)
def test_a_race_counts_by_its_verdict_only(first: str, second: str, word: str) -> None:
    case = replace(OWN, threads=8)
    found = change(outcome(first, case=case), outcome(second, seen=WRONG, case=case))
    assert (found.change, found.divergences) == (word, ())


def test_a_checkpoint_that_loads_now_is_no_harm() -> None:
    raised = Observation(exception={"types": ["OSError"], "message": "no disk"})
    found = change(outcome(**REFUSED, seen=raised), outcome())
    (loads,) = found.divergences
    assert (loads.kind, loads.actual, found.impact) == ("rejected", "a model", "report")
    lost = change(outcome(), outcome(**REFUSED, seen=raised))
    assert (lost.divergences[0].kind, lost.impact) == ("rejected", "fails")
