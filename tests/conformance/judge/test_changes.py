"""Two judged runs to what changed: pure, so every rule is shown on data made for it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from conformance.cases.case import Case
from conformance.judge.accepted import Accept, BadAcceptFile, accept, idle, read_accepted
from conformance.judge.changes import (
    ADDED,
    CHANGED,
    FIXED,
    NOT_JUDGED,
    REGRESSED,
    REMOVED,
    UNCHANGED,
    Change,
    Outcome,
    change,
    changes,
    exit_code,
)
from conformance.judge.moved_outputs import in_words, moved_by
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

CASE = Case("tie/different", ("TIE-4", "OUT-1"))
HEAD, LOGITS = "lm_head.weight", "logits"
TENSOR = {
    "kind": "parameter",
    "class": "Parameter",
    "persistent": True,
    "dtype": "torch.float32",
    "shape": [4],
    "stride": [1],
    "device": "cpu",
    "requires_grad": True,
    "storage": HEAD,
    "fingerprint": "00",
}
OUTPUT = {"dtype": "torch.float32", "shape": [1, 8, 4], "fingerprint": "11"}
SEEN = Observation(
    tensors={HEAD: TENSOR},
    info={"missing_keys": {"container": "set", "values": []}},
    config={"vocab_size": 4, "transformers_version": "5.0.0"},
    generation_config={"eos_token_id": 2, "max_length": None},
    outputs={LOGITS: OUTPUT},
    accuracy={"unit": 0.5, "error": 2.0, "sample": [1.0, 2.0]},
    state={"before": {"rng": "a"}, "after": {"rng": "a"}},
)
LOST_TIE = Divergence("tie", HEAD, HEAD, "model.embed_tokens.weight", "TIE-4")


def outcome(
    status: str = AGREE,
    *divergences: Divergence,
    seen: Observation | None = SEEN,
    target: str = "1.0",
    **result: Any,
) -> Outcome:
    found = Result(CASE.id, CASE.clauses, "valid", target, status, divergences, **result)
    return Outcome(CASE, found, seen)


def with_head(**facts: Any) -> Observation:
    return replace(SEEN, tensors={HEAD: TENSOR | facts})


def with_logits(
    sample: list[float], error: float | None, fingerprint: str = "22", **facts: Any
) -> Observation:
    return replace(
        SEEN,
        outputs={LOGITS: OUTPUT | {"fingerprint": fingerprint} | facts},
        accuracy={"unit": 0.5, "error": error, "sample": sample},
    )


UNTIED = with_head(storage="other")


@pytest.mark.parametrize("broken", [KNOWN, DIVERGE])
def test_regressed_and_fixed_are_judged_by_the_specification_known_or_not(broken: str) -> None:
    bad = outcome(broken, LOST_TIE, seen=UNTIED, target="2.0")
    regressed, fixed = change(outcome(), bad), change(bad, outcome())
    assert (regressed.change, regressed.regressed, regressed.fixed) == (REGRESSED, ("TIE-4",), ())
    assert (fixed.change, fixed.regressed, fixed.fixed) == (FIXED, (), ("TIE-4",))
    assert [(d.kind, d.where, d.expected, d.actual, d.clause) for d in fixed.divergences] == [
        ("tie", HEAD, "other", HEAD, "TIE-4")
    ]
    assert (regressed.before, regressed.after) == ("1.0", "2.0")


def test_what_both_keep_and_leave_otherwise_has_changed() -> None:
    found = change(outcome(), outcome(seen=with_head(requires_grad=False)))
    assert found.change == CHANGED
    assert [(d.kind, d.expected, d.actual) for d in found.divergences] == [
        ("requires_grad", True, False)
    ]


def test_what_both_break_in_the_same_way_is_unchanged() -> None:
    bad = outcome(KNOWN, LOST_TIE, seen=UNTIED)
    assert change(bad, bad).change == UNCHANGED
    assert change(outcome(), outcome()).change == UNCHANGED


def test_two_clauses_that_take_turns_are_told_apart() -> None:
    other = Divergence("requires_grad", HEAD, True, False, "INI-3")
    found = change(
        outcome(KNOWN, LOST_TIE, seen=UNTIED),
        outcome(KNOWN, other, seen=with_head(requires_grad=False)),
    )
    assert (found.change, found.regressed, found.fixed) == (REGRESSED, ("INI-3",), ("TIE-4",))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(SKIP, AGREE, ADDED), (AGREE, SKIP, REMOVED), (SKIP, SKIP, NOT_JUDGED)],
)
def test_cases_that_apply_in_one_target_only(first: str, second: str, expected: str) -> None:
    assert change(outcome(first), outcome(second)).change == expected


def test_what_was_not_observed_cannot_be_compared_and_says_why() -> None:
    died = outcome(ERROR, seen=None, reason="stock: killed by SIGKILL", target="2.0")
    for pair in ((outcome(), died), (died, outcome())):
        found = change(*pair)
        assert found.change == NOT_JUDGED
        assert found.reason == "2.0: stock: killed by SIGKILL"
    assert exit_code([change(outcome(), died)]) == 2


def test_a_message_or_state_that_only_verdicts_tell_of_counts() -> None:
    threads = Divergence("state", "threads", 2, 1, "STA-1")
    found = change(outcome(), outcome(KNOWN, threads))
    assert (found.change, found.divergences) == (REGRESSED, (replace(threads, right="first"),))
    gone = change(outcome(KNOWN, threads), outcome())
    assert [(d.expected, d.actual) for d in gone.divergences] == [(1, 2)]


def test_a_check_without_a_comparison_counts() -> None:
    wrong = Divergence("values", HEAD, "mean 0", "mean 3", "MIS-1")
    assert change(outcome(), outcome(KNOWN, wrong)).divergences == (replace(wrong, right="first"),)


@pytest.mark.parametrize(
    "seen",
    [
        replace(SEEN, config=SEEN.config | {"transformers_version": "5.1.0"}),
        replace(SEEN, config=SEEN.config | {"torchscript": False}),
        replace(SEEN, config={"transformers_version": "5.0.0"}),
        replace(SEEN, generation_config={"eos_token_id": 2, "max_length": 20}),
        replace(SEEN, tensors={HEAD: TENSOR, "inv": TENSOR | {"persistent": False}}),
    ],
    ids=["release", "field-more", "field-less", "default-set", "computed-buffer"],
)
def test_what_only_one_release_has_at_all_is_noted_and_no_change(seen: Observation) -> None:
    found = change(outcome(), outcome(seen=seen))
    assert (found.change, len(found.defaults)) == (UNCHANGED, 1)


@pytest.mark.parametrize(
    "seen",
    [
        replace(SEEN, config=SEEN.config | {"vocab_size": 5}),
        replace(SEEN, generation_config={"eos_token_id": 3, "max_length": None}),
        replace(SEEN, tensors={HEAD: TENSOR, "kept": TENSOR}),
        replace(SEEN, info={"missing_keys": {"container": "list", "values": []}}),
        replace(SEEN, info={}),
        replace(SEEN, exception={"types": ["OSError"], "message": "no"}),
    ],
)
def test_what_is_no_default_is_a_change(seen: Observation) -> None:
    found = change(outcome(), outcome(seen=seen))
    assert (found.change, found.defaults) == (CHANGED, ())


# Outputs, in units in the last place.


def test_a_small_move_that_is_as_close_to_the_truth_is_told_and_no_change() -> None:
    found = change(outcome(), outcome(seen=with_logits([1.5, 2.0], 2.5)))
    assert found.change == UNCHANGED
    assert found.moved == "logits moved by 1 ulp, still as close to the truth: 2 ulp, then 2.5"


def test_a_move_away_from_the_truth_is_a_change() -> None:
    found = change(outcome(), outcome(seen=with_logits([1.5, 2.0], 9.0)))
    assert found.change == CHANGED
    assert "further from the truth: 2 ulp, then 9" in found.divergences[0].detail


def test_a_large_move_is_a_change_even_towards_the_truth() -> None:
    found = change(outcome(), outcome(seen=with_logits([500.0, 2.0], 0.1)))
    assert found.change == CHANGED
    assert "closer to the truth" in found.divergences[0].detail


def test_another_dtype_or_shape_is_no_small_move() -> None:
    for facts in ({"dtype": "torch.float16"}, {"shape": [1, 8, 5]}):
        found = change(outcome(), outcome(seen=with_logits([1.0, 2.0], 2.0, **facts)))
        assert (found.change, found.moved) == (CHANGED, "")


def test_without_numbers_a_moved_output_is_a_change() -> None:
    seen = replace(with_logits([1.0, 2.0], 2.0), accuracy=None)
    assert change(outcome(), outcome(seen=seen)).change == CHANGED


@pytest.mark.parametrize(
    ("before", "after", "units"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.0], [1.0, 4.0], 4.0),
        ([1.0, 2.0], [1.0], None),
    ],
)
def test_moved_by(before: list[float], after: list[float], units: float | None) -> None:
    noted = [{"unit": 0.5, "error": None, "sample": sample} for sample in (before, after)]
    assert moved_by(*noted) == units
    assert moved_by(None, noted[0]) is None


def test_without_an_independent_forward_no_side_is_taken() -> None:
    told, further = in_words(3.0, {"error": None}, {"error": 1.0})
    assert "no independent forward" in told
    assert not further


# The exit code, and what one has decided to live with.

GRAD = replace(
    change(outcome(), outcome(seen=with_head(requires_grad=False))), case="ini/frozen-embedding"
)


def test_exit_code() -> None:
    same = change(outcome(), outcome())
    fixed = replace(same, change=FIXED)
    assert exit_code([same, fixed, replace(same, change=ADDED)]) == 0
    assert exit_code([same, GRAD]) == 1
    assert exit_code([same, replace(GRAD, change=REGRESSED)]) == 1
    assert exit_code([replace(GRAD, accepted="since March")]) == 0


@pytest.mark.parametrize(
    ("entry", "covered"),
    [
        (Accept("ini/*", "why"), True),
        (Accept("ini/*", "why", kinds=("requires_grad",), where=("lm_*",)), True),
        (Accept("tie/*", "why"), False),
        (Accept("ini/*", "why", clause="TIE-4"), False),
        (Accept("ini/*", "why", kinds=("dtype",)), False),
        (Accept("ini/*", "why", where=("model.*",)), False),
    ],
)
def test_an_entry_accepts_what_it_names_and_no_more(entry: Accept, covered: bool) -> None:
    assert accept([GRAD], [entry])[0].accepted == ("why" if covered else "")
    assert idle([GRAD], [entry]) == ([] if covered else [entry])


def test_one_difference_too_many_is_not_accepted() -> None:
    two = replace(GRAD, divergences=(*GRAD.divergences, LOST_TIE))
    assert not accept([two], [Accept("*", "one", kinds=("tie",))])[0].accepted
    both = [Accept("*", "one", kinds=("tie",)), Accept("*", "two", kinds=("requires_grad",))]
    assert accept([two], both)[0].accepted == "one; two"


def test_what_is_fixed_needs_no_acceptance() -> None:
    fixed = replace(GRAD, change=FIXED)
    assert not accept([fixed], [Accept("*", "why")])[0].accepted


def test_the_file_of_accepted_changes(tmp_path) -> None:
    file = tmp_path / "accept.toml"
    file.write_text('[[accept]]\ncase = "dty/*"\nreason = "why"\nkinds = ["dtype"]\n')
    assert read_accepted(file) == [Accept("dty/*", "why", kinds=("dtype",))]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[[accept]", "is not TOML"),
        ('[[accept]]\ncase = "a"\n', "number 1 lacks reason"),
        ('[[accept]]\ncase = "a"\nreason = "b"\ncases = "c"\n', "unknown field cases"),
    ],
)
def test_a_bad_file_is_named_with_its_entry(tmp_path, text: str, named: str) -> None:
    file = tmp_path / "accept.toml"
    file.write_text(text)
    with pytest.raises(BadAcceptFile, match=named) as raised:
        read_accepted(file)
    assert str(file) in str(raised.value)


def test_runs_are_paired_by_case_in_the_order_of_the_catalogue() -> None:
    def named(name: str) -> Outcome:
        return replace(outcome(), case=replace(CASE, id=name))

    found = changes([named("a"), named("b")], [named("b"), named("c")])
    assert len(found) == 1


def test_the_record_has_the_words_of_the_contract() -> None:
    record = GRAD.record()
    assert record["record"] == "change"
    assert (record["from"], record["to"], record["change"]) == ("1.0", "1.0", CHANGED)
    wanted = {"case", "clauses", "divergences", "deviation", "rerun"}
    assert wanted <= record.keys()
    assert isinstance(GRAD, Change)


def test_no_torch_is_needed() -> None:
    modules = "conformance.judge.changes, conformance.judge.accepted"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
