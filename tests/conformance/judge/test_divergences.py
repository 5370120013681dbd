"""Comparing is a pure function: same in, nothing out; one fact changed, one divergence out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.judge.divergences import TENSOR_KINDS, compare
from conformance.observe.usage import EXPERIMENTS
from conformance.results.records import NO_MODEL, Divergence, Observation
from conformance.spec import clauses

steady = settings(max_examples=40, deadline=None, derandomize=True)

TENSOR = {
    "kind": "parameter",
    "class": "Parameter",
    "persistent": True,
    "dtype": "torch.float32",
    "shape": [4, 2],
    "stride": [2, 1],
    "device": "cpu",
    "requires_grad": True,
    "storage": "a.weight",
    "fingerprint": "0011223344556677",
}
STATE = {"default_dtype": "torch.float32", "threads": 2, "open_files": 5, "rng": "aa"}
KEPT = {"before": STATE, "after": STATE}
RIGHT = Observation(
    tensors={"a.weight": TENSOR, "b.weight": TENSOR | {"storage": "a.weight"}},
    modules={"": ("Model", False), "a": ("Linear", False)},
    info={
        "missing_keys": {"container": "set", "values": ["b.weight"]},
        "unexpected_keys": {"container": "set", "values": ["c"]},
        "mismatched_keys": {"container": "set", "values": ["d [1] [2]"]},
        "error_msgs": {"container": "list", "values": []},
    },
    config={"hidden_size": 2, "nested": {"a": 1}},
    generation_config={"eos_token_id": 5},
    device_map={"": "cpu"},
    outputs={
        "logits": {"dtype": "torch.float32", "shape": [1], "fingerprint": "ab"},
        "tokens": [1],
    },
    state={"before": STATE, "after": STATE | {"rng": "bb"}},
    gradients={"a.weight": {"fingerprint": "dd"}},
    types={"config": "Config", "config.hidden_size": "int", "generation_config": "Generation"},
)
REFUSED = Observation(
    exception={
        "types": ["ShapeMismatch", "LoadError", "RuntimeError", "Exception", "BaseException"],
        "message": "a.weight in model.safetensors is [4], must be [4, 2]",
    },
    state=KEPT,
)

names = st.text("abc.", min_size=1, max_size=6)
plain = st.none() | st.booleans() | st.integers(-9, 9) | st.text("xyz", max_size=4)
tensors = st.dictionaries(
    names, st.fixed_dictionaries(dict.fromkeys(TENSOR, plain)), min_size=1, max_size=4
)
infos = st.none() | st.dictionaries(
    names,
    st.fixed_dictionaries(
        {"container": st.sampled_from(["set", "list"]), "values": st.lists(names)}
    ),
)
mappings = st.dictionaries(names, plain, max_size=3)


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    state = draw(mappings)
    exception = draw(
        st.none()
        | st.fixed_dictionaries({"types": st.lists(names, min_size=1), "message": st.text()})
    )
    rng = {} if exception else {"rng": draw(plain)}
    return Observation(
        exception=exception,
        tensors=draw(tensors),
        modules=draw(st.dictionaries(names, st.tuples(names, st.booleans()))),
        info=draw(infos),
        config=draw(mappings),
        generation_config=draw(st.none() | mappings),
        device_map=draw(st.none() | st.dictionaries(names, names)),
        outputs=draw(mappings),
        state={"before": state, "after": state | rng},
        seconds=draw(st.floats(0, 9)),
    )


@steady
@given(observations())
def test_an_observation_agrees_with_itself_and_is_left_alone(observation: Observation) -> None:
    before = copy.deepcopy(asdict(observation))

    assert compare(observation, observation) == []
    assert asdict(observation) == before


@steady
@given(observations(), observations())
def test_time_and_memory_are_not_compared(left: Observation, right: Observation) -> None:
    slow = replace(right, seconds=right.seconds + 1, peak_bytes=10**9)

    assert compare(left, slow) == compare(left, right)


@steady
@given(tensors, st.data())
def test_one_fact_of_one_tensor_is_one_divergence_of_its_kind(
    held: dict[str, dict[str, Any]], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(held)))
    fact, kind = data.draw(st.sampled_from(sorted(TENSOR_KINDS.items())))
    was, now = held[name][fact], data.draw(plain.filter(lambda value: value != held[name][fact]))
    changed = held | {name: held[name] | {fact: now}}

    found = compare(Observation(tensors=held), Observation(tensors=changed))

    assert found == [Divergence(kind, name, was, now)]


def test_every_fact_of_a_tensor_is_compared() -> None:
    assert set(TENSOR_KINDS) == set(TENSOR)


def tensor(**facts: Any) -> Callable[[Observation], Observation]:
    def change(right: Observation) -> Observation:
        return replace(right, tensors={**right.tensors, "a.weight": TENSOR | facts})

    return change


def info(field: str, **facts: Any) -> Callable[[Observation], Observation]:
    def change(right: Observation) -> Observation:
        assert right.info is not None
        return replace(right, info={**right.info, field: {**right.info.get(field, {}), **facts}})

    return change


def whole(**fields: Any) -> Callable[[Observation], Observation]:
    return lambda right: replace(right, **fields)


def raised(*types: str) -> dict[str, Any]:
    return {"types": list(types), "message": "no"}


CHANGES: list[tuple[str, str, Callable[[Observation], Observation]]] = [
    ("values", "a.weight", tensor(fingerprint="ff")),
    ("dtype", "a.weight", tensor(dtype="torch.float16")),
    ("shape", "a.weight", tensor(shape=[2, 4])),
    ("stride", "a.weight", tensor(stride=[1, 4])),
    ("device", "a.weight", tensor(device="meta")),
    ("tie", "a.weight", tensor(storage="b.weight")),
    ("requires_grad", "a.weight", tensor(requires_grad=False)),
    ("kind-of-tensor", "a.weight", tensor(kind="buffer")),
    ("kind-of-tensor", "a.weight", tensor(**{"class": "Tensor"})),
    ("kind-of-tensor", "a.weight", tensor(persistent=False)),
    ("kind-of-tensor", "b.weight", whole(tensors={"a.weight": TENSOR})),
    ("kind-of-tensor", "new", whole(tensors={**RIGHT.tensors, "new": TENSOR})),
    ("missing", "missing_keys", info("missing_keys", values=[])),
    ("unexpected", "unexpected_keys", info("unexpected_keys", values=["c", "e"])),
    ("mismatched", "mismatched_keys", info("mismatched_keys", values=["d"])),
    ("config", "error_msgs", info("error_msgs", values=["oh"])),
    ("config", "missing_keys", info("missing_keys", container="list")),
    ("config", "loading info", whole(info=None)),
    ("training", "a", whole(modules={"": ("Model", False), "a": ("Linear", True)})),
    ("training", "(model)", whole(modules={"": ("Model", True), "a": ("Linear", False)})),
    ("training", "a", whole(modules={"": ("Model", False)})),
    ("config", "hidden_size", whole(config={"hidden_size": 3, "nested": {"a": 1}})),
    ("config", "nested", whole(config={"hidden_size": 2})),
    ("generation-config", "eos_token_id", whole(generation_config={"eos_token_id": 6})),
    ("generation-config", "(all)", whole(generation_config=None)),
    ("device-map", "(all)", whole(device_map=None)),
    ("device-map", "", whole(device_map={"": "cuda:0"})),
    ("output", "tokens", whole(outputs={"logits": RIGHT.outputs["logits"], "tokens": [2]})),
    ("output", "logits", whole(outputs={"tokens": [1]})),
    ("gradient", "a.weight", whole(gradients={"a.weight": {"fingerprint": "ee"}})),
    (
        "state",
        "threads",
        whole(state={"before": STATE, "after": STATE | {"rng": "bb", "threads": 1}}),
    ),
    ("state", "rng", whole(state={"before": STATE, "after": STATE | {"rng": "cc"}})),
    ("rejected", "(load)", whole(exception=raised("OSError", "Exception", "BaseException"))),
    ("exit", "(load)", whole(exception=raised("SystemExit", "BaseException"), state=KEPT)),
    ("no-model", "(load)", whole(exception=raised(NO_MODEL), state=KEPT)),
    ("secret", "a log record", whole(messages={"secret": ["a log record"]})),
    ("type", "config.hidden_size", whole(types=RIGHT.types | {"config.hidden_size": "str"})),
]


@pytest.mark.parametrize(
    ("kind", "where", "change"),
    CHANGES,
    ids=[f"{number}-{kind}-{where}" for number, (kind, where, _) in enumerate(CHANGES)],
)
def test_one_change_is_one_divergence_of_the_kind_that_design_names(
    kind: str, where: str, change: Callable[[Observation], Observation]
) -> None:
    assert compare(RIGHT, RIGHT) == []

    found = compare(RIGHT, change(RIGHT))

    assert [(d.kind, d.where) for d in found] == [(kind, where)]
    assert found[0].expected != found[0].actual


def test_every_kind_of_the_vocabulary_can_be_produced() -> None:
    from tests.conformance.spec.test_spec import KINDS

    of_rejections = {"accepted", "exception", "message"}  # tested below
    of_the_process = {"crash", "hang"}  # in test_apart
    of_checks = {"log"} | {clauses()[clause].kinds[0] for clause in EXPERIMENTS}  # in test_checks
    produced = {kind for kind, _, _ in CHANGES} | of_rejections | of_the_process | of_checks
    assert produced == set(KINDS)


def test_the_tokens_of_a_model_that_stops_generating_are_missed() -> None:
    found = compare(RIGHT, replace(RIGHT, outputs={"exception": "ValueError: no"}))

    assert {d.where for d in found} == {"logits", "tokens", "exception"}


def test_a_loader_that_changed_the_process_first_thing_is_not_excused_by_a_like_start() -> None:
    # Only the actual loader's before and after count: the reference's state is its own affair.
    elsewhere = {"before": STATE | {"threads": 9}, "after": STATE | {"threads": 9, "rng": "bb"}}

    assert compare(replace(RIGHT, state=elsewhere), RIGHT) == []


# --- rejections ---


def refusing(*types: str, message: str = REFUSED.exception["message"]) -> Observation:
    return replace(REFUSED, exception={"types": list(types), "message": message})


def kinds(found: list[Divergence]) -> list[str]:
    return [divergence.kind for divergence in found]


def test_a_rejection_agrees_if_it_is_the_documented_builtin_exception() -> None:
    other_class = refusing("MyOwnError", "RuntimeError", "Exception")

    assert compare(REFUSED, other_class) == []


@pytest.mark.parametrize("name", ["OSError", "ValueError", "RuntimeError"])
def test_each_documented_type_is_told_from_the_others(name: str) -> None:
    expected = refusing("Ours", "LoadError", name, "Exception")

    assert compare(expected, refusing(name, "Exception")) == []
    found = compare(expected, refusing("KeyError", "LookupError", "Exception"))
    assert found == [Divergence("exception", "(type)", name, "KeyError")]


def test_an_undocumented_exception_is_compared_by_its_own_class() -> None:
    assert kinds(compare(refusing("KeyError", "Exception"), refusing("TypeError"))) == ["exception"]
    assert compare(refusing("KeyError", "Exception"), refusing("KeyError", "Exception")) == []


def test_a_message_need_not_be_equal_but_must_name_what_the_case_says() -> None:
    terse = refusing("RuntimeError", message="the shape of a.weight is wrong")

    assert compare(REFUSED, terse) == []
    assert compare(REFUSED, terse, names=("a.weight",)) == []
    found = compare(REFUSED, terse, names=("a.weight", "model.safetensors"))
    assert kinds(found) == ["message"]
    assert "model.safetensors" in found[0].expected
    assert "a.weight" not in found[0].expected
    assert found[0].actual == "the shape of a.weight is wrong"


def test_type_and_message_are_both_told() -> None:
    found = compare(REFUSED, refusing("KeyError", message="'x'"), names=("a.weight",))

    assert kinds(found) == ["exception", "message"]


@pytest.mark.parametrize("acceptable", [True, False])
def test_a_load_where_the_reference_refuses_is_told_whatever_the_input_class(
    acceptable: bool,
) -> None:
    found = compare(REFUSED, RIGHT, acceptable=acceptable)

    assert kinds(found) == ["accepted"]
    assert found[0].expected.startswith("RuntimeError: a.weight")


def test_acceptable_input_may_be_rejected_or_loaded_as_the_reference_does() -> None:
    other = tensor(fingerprint="ff")(RIGHT)

    assert compare(RIGHT, REFUSED, acceptable=True) == []
    assert compare(RIGHT, RIGHT, acceptable=True) == []
    assert kinds(compare(RIGHT, other, acceptable=True)) == ["values"], "a silent third outcome"


def test_valid_input_may_not_be_rejected() -> None:
    (found,) = compare(RIGHT, REFUSED)

    assert (found.kind, found.expected) == ("rejected", "a model")
    assert found.actual.startswith("ShapeMismatch: a.weight in")


@pytest.mark.parametrize("fact", ["threads", "rng"])
def test_a_rejection_must_leave_the_process_as_it_was(fact: str) -> None:
    left = replace(REFUSED, state={"before": STATE, "after": STATE | {fact: "other"}})

    assert [(d.kind, d.where) for d in compare(REFUSED, left)] == [("state", fact)]


def test_an_acceptable_rejection_too_must_leave_the_process_as_it_was() -> None:
    left = replace(REFUSED, state={"before": STATE, "after": STATE | {"threads": 1}})

    assert kinds(compare(RIGHT, left, acceptable=True)) == ["state"]


def test_a_type_is_compared_where_the_values_are_the_same() -> None:
    """Another value has another type often enough: one fault, one divergence."""
    as_text = RIGHT.types | {"config.hidden_size": "str"}
    another = {"hidden_size": "two", "nested": {"a": 1}}

    hidden = compare(RIGHT, replace(RIGHT, types=as_text))
    shown = compare(RIGHT, replace(RIGHT, types=as_text, config=another))

    assert [(each.kind, each.where) for each in hidden] == [("type", "config.hidden_size")]
    assert [(each.kind, each.where) for each in shown] == [("config", "hidden_size")]
