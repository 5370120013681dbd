"""Observing: facts by hand, one bit seen, the process watched and put back."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import random
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from conformance.cases.case import Case, ConfigObject
from conformance.judge.checks import objections
from conformance.observe.facts import observe_tensors
from conformance.observe.loaders import reference
from conformance.observe.observe import observe
from conformance.observe.outputs import PROMPT_LENGTH, example_inputs
from conformance.observe.tensor_details import observe_details
from conformance.results.fingerprint import fingerprint
from conformance.results.records import Observation
from conformance.world.process import base_state
from conformance.world.snapshot import Snapshot


class Tiny(nn.Module):
    """A transposed parameter, a tied pair, a view, and buffers of both kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"answer": 42}
        self.turned = nn.Parameter(torch.arange(6.0).reshape(2, 3).t())
        self.first = nn.Linear(3, 2, bias=False)
        self.tied = nn.Linear(3, 2, bias=False)
        self.tied.weight = self.first.weight
        self.copied = nn.Linear(3, 2, bias=False)
        self.copied.weight = nn.Parameter(self.first.weight.detach().clone())
        self.frozen = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.empty = nn.Parameter(torch.zeros(0, 4))
        self.other_empty = nn.Parameter(torch.zeros(0, 4))
        self.nowhere = nn.Parameter(torch.empty(2, device="meta"))
        self.register_buffer("kept", torch.tensor([1, 2]))
        self.register_buffer("passing", self.kept[1:], persistent=False)
        self.register_buffer("absent", None)


@pytest.fixture(scope="module")
def facts() -> dict[str, dict[str, Any]]:
    return observe_tensors(Tiny())


def test_every_parameter_and_buffer_is_there_by_every_name(facts: dict[str, Any]) -> None:
    assert set(facts) == {
        *("turned", "frozen", "empty", "other_empty", "nowhere", "kept", "passing"),
        *("first.weight", "tied.weight", "copied.weight"),
    }


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("turned", {"shape": [3, 2], "stride": [1, 3], "dtype": "torch.float32", "device": "cpu"}),
        ("turned", {"kind": "parameter", "class": "Parameter", "requires_grad": True}),
        ("first.weight", {"shape": [2, 3], "stride": [3, 1], "storage": "first.weight"}),
        ("tied.weight", {"storage": "first.weight", "persistent": True}),
        ("copied.weight", {"storage": "copied.weight"}),
        ("frozen", {"shape": [], "stride": [], "requires_grad": False}),
        ("empty", {"shape": [0, 4], "storage": "empty"}),
        ("other_empty", {"storage": "other_empty"}),
        ("nowhere", {"device": "meta", "storage": "nowhere", "fingerprint": "meta"}),
        ("kept", {"kind": "buffer", "class": "Tensor", "persistent": True, "storage": "kept"}),
        ("kept", {"dtype": "torch.int64", "requires_grad": False}),
        ("passing", {"kind": "buffer", "persistent": False, "storage": "kept"}),
    ],
)
def test_facts_are_those_found_by_hand(
    facts: dict[str, Any], name: str, wanted: dict[str, Any]
) -> None:
    assert {fact: facts[name][fact] for fact in wanted} == wanted


def test_a_copy_has_the_bytes_and_not_the_storage(facts: dict[str, Any]) -> None:
    assert facts["copied.weight"]["fingerprint"] == facts["first.weight"]["fingerprint"]
    assert facts["copied.weight"]["storage"] != facts["first.weight"]["storage"]


# --- fingerprints ---

BITS = {torch.float64: torch.int64, torch.float32: torch.int32, torch.float16: torch.int16}
BITS |= {torch.bfloat16: torch.int16, torch.int64: torch.int64, torch.uint8: torch.uint8}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(list(BITS)), st.integers(1, 9), st.data())
def test_one_bit_is_seen_wherever_it_is(dtype: torch.dtype, size: int, data: st.DataObject) -> None:
    whole = torch.arange(size).to(dtype)
    place = data.draw(st.integers(0, size * dtype.itemsize - 1))
    bit = data.draw(st.integers(0, 7))
    changed = whole.clone()
    changed.view(torch.uint8)[place] ^= 1 << bit

    assert fingerprint(changed) != fingerprint(whole)
    changed.view(torch.uint8)[place] ^= 1 << bit
    assert fingerprint(changed) == fingerprint(whole)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_zeros_of_both_signs_and_nans_of_two_payloads_differ(dtype: torch.dtype) -> None:
    zeros = torch.tensor([0.0], dtype=dtype), torch.tensor([-0.0], dtype=dtype)
    nans = [torch.tensor([torch.nan], dtype=dtype) for _ in range(2)]
    nans[1].view(BITS[dtype])[0] ^= 1

    assert torch.equal(*zeros)
    assert nans[1].isnan().all()
    assert fingerprint(zeros[0]) != fingerprint(zeros[1])
    assert fingerprint(nans[0]) != fingerprint(nans[1])


@pytest.mark.parametrize("shape", [(), (0,), (0, 4), (1,), (3, 2)])
def test_a_tensor_of_any_shape_has_a_fingerprint_that_repeats(shape: tuple[int, ...]) -> None:
    pair = [torch.full(shape, 1.5, dtype=torch.bfloat16) for _ in range(2)]

    assert len(fingerprint(pair[0])) == 16
    assert fingerprint(pair[0]) == fingerprint(pair[1])


def test_elements_count_and_not_how_they_lie_in_memory() -> None:
    whole = torch.arange(6.0).reshape(2, 3)
    turned = whole.t().contiguous().t()

    assert whole.stride() != turned.stride()
    assert fingerprint(whole) == fingerprint(turned)
    assert fingerprint(whole) != fingerprint(whole.t())
    assert fingerprint(whole[1]) == fingerprint(torch.arange(3.0, 6.0))


def test_a_fingerprint_is_a_plain_digest_of_the_bytes() -> None:
    digest = hashlib.sha256(struct.pack("<2f", 1.0, -2.5)).hexdigest()

    assert fingerprint(torch.tensor([1.0, -2.5])) == digest[:16]


# --- a load ---


@pytest.fixture
def empty_case(tmp_path: Path) -> Case:
    """A folder without a checkpoint, for loaders that need none."""
    return Case("tests/tiny", (), "", model="", folder=tmp_path)


def loads(model: Any) -> Callable[..., Any]:
    return lambda model_class, source, **options: model


def seen(case: Case, loader: Callable[..., Any]) -> Observation:
    return observe(case, loader).observation


def test_a_load_leaves_modules_config_and_info(empty_case: Case) -> None:
    model = Tiny()
    model.nowhere = nn.Parameter(torch.zeros(2))
    model.tied.eval()
    info = {"missing_keys": {"b", "a"}, "mismatched_keys": [("c", torch.Size([1]), (2, 3))]}

    found = seen(empty_case, loads((model, info)))

    assert found.exception is None
    assert found.modules["tied"] == ("Linear", False)
    assert found.modules[""] == ("Tiny", True)
    assert found.config == {"answer": 42}
    assert found.generation_config is None
    assert found.device_map is None
    assert found.info == {
        "missing_keys": {"container": "set", "values": ["a", "b"]},
        "mismatched_keys": {"container": "list", "values": ["c [1] [2, 3]"]},
    }
    assert found.seconds > 0
    assert objections(empty_case, found) == ()


def test_a_model_alone_has_no_info(empty_case: Case) -> None:
    assert seen(empty_case, loads(Tiny())).info is None


def test_uninitialised_memory_shows_as_nan_and_is_objected_to(empty_case: Case) -> None:
    def careless(model_class: Any, source: str, **options: Any) -> nn.Module:
        model = Tiny()
        model.nowhere = nn.Parameter(torch.empty(2))
        model.first.weight = nn.Parameter(torch.empty_like(model.first.weight))
        return model

    loaded = observe(empty_case, careless)

    assert loaded.model is not None
    assert loaded.model.nowhere.isnan().all()
    assert {(d.clause, d.where) for d in objections(empty_case, loaded.observation)} == {
        ("INI-4", "nowhere"),
        ("INI-4", "first.weight"),
    }
    assert not torch.are_deterministic_algorithms_enabled()


def test_meta_is_objected_to(empty_case: Case) -> None:
    (found,) = objections(empty_case, seen(empty_case, loads(Tiny())))

    assert (found.clause, found.kind, found.where) == ("INI-4", "device", "nowhere")


def test_a_loader_that_raises_leaves_message_and_types(empty_case: Case) -> None:
    class Mine(ValueError):
        """Nobody has heard of it."""

    def broken(model_class: Any, source: str, **options: Any) -> None:
        raise Mine("a.weight is not there")

    loaded = observe(empty_case, broken)

    assert loaded.model is None
    assert loaded.observation.exception == {
        "types": ["Mine", "ValueError", "Exception", "BaseException", "object"],
        "message": "a.weight is not there",
    }
    assert loaded.observation.tensors == {}
    assert set(loaded.observation.state) == {"before", "after"}


def test_the_loader_is_given_class_path_and_options(case: Callable[[str], Case]) -> None:
    given: list[Any] = []

    def curious(model_class: Any, source: str, **options: Any) -> Any:
        given.extend([model_class.__name__, source, options])
        raise ValueError

    observe(case("dty/f32-as-bfloat16"), curious)

    assert given[0] == "LlamaForCausalLM"
    assert Path(given[1], "config.json").is_file()
    assert given[2] == {"output_loading_info": True, "dtype": torch.bfloat16}


def test_a_config_that_was_passed_and_changed_shows(case: Callable[[str], Case]) -> None:
    def meddling(model_class: Any, source: str, *, config: Any, **options: Any) -> Any:
        result = reference(model_class, source, config=config, **options)
        config.rope_theta = 1.0
        config.mark = "left"
        return result

    right, wrong = (seen(case("cfg/object"), loader) for loader in (reference, meddling))

    assert right.config["(the config passed)"] == "unchanged"
    assert "left" in wrong.config["(the config passed)"]
    assert ConfigObject() == ConfigObject({})


def test_outputs_are_logits_hidden_states_and_tokens(case: Callable[[str], Case]) -> None:
    found = seen(case("out/f32-3"), reference)

    states = [name for name in found.outputs if name.startswith("hidden_states.")]
    assert len(states) == 3 + 1  # one a layer and the embedding
    assert found.outputs["logits"]["shape"] == [1, PROMPT_LENGTH, 128]
    assert found.outputs["logits"]["dtype"] == "torch.float32"
    assert len(found.outputs["tokens"]) > PROMPT_LENGTH


def test_a_forward_that_fails_is_an_output(case: Callable[[str], Case]) -> None:
    def crippled(*args: Any, **options: Any) -> Any:
        model, info = reference(*args, **options)
        model.lm_head.weight = nn.Parameter(torch.zeros(3, 5))
        return model, info

    assert set(seen(case("res/single"), crippled).outputs) == {"exception"}


def test_the_prompt_is_fixed_and_within_the_vocabulary(case: Callable[[str], Case]) -> None:
    model = observe(case("res/single"), reference).model
    assert model is not None

    inputs = [example_inputs(model) for _ in range(2)]

    assert inputs[0] is not None
    assert inputs[1] is not None
    assert torch.equal(inputs[0]["input_ids"], inputs[1]["input_ids"])
    assert inputs[0]["input_ids"].shape == (1, PROMPT_LENGTH)
    assert inputs[0]["input_ids"].unique().numel() == PROMPT_LENGTH
    assert example_inputs(nn.Linear(1, 1)) is None


# --- what only absolute checks read ---


def details_of(model: nn.Module, *clauses: str, missing: tuple[str, ...] = ()) -> dict[str, Any]:
    info = {"missing_keys": {"container": "set", "values": list(missing)}}
    return observe_details(Case("tests/details", clauses), Path("/nowhere"), model, info)


def test_details_are_those_found_by_hand() -> None:
    model = Tiny()
    model.first.weight.data[0, 0] = torch.nan
    with torch.inference_mode():
        model.frozen = nn.Parameter(torch.zeros(()), requires_grad=False)
    found = details_of(model)

    assert found["first.weight"] == found["tied.weight"]
    assert found["tied.weight"]["object"] == "first.weight"
    assert found["copied.weight"]["object"] == "copied.weight"
    assert [name for name, facts in found.items() if facts["nan"]] == [
        "first.weight",
        "tied.weight",
    ]
    assert [name for name, facts in found.items() if facts["inference"]] == ["frozen"]
    assert (found["passing"]["nbytes"], found["passing"]["kept"]) == (8, 16)
    cheap = {"object", "nbytes", "kept", "inference", "nan"}
    assert all(set(facts) == cheap for facts in found.values())


def test_costly_details_are_noted_where_a_clause_needs_them() -> None:
    model = Tiny()
    model.register_buffer("inv_freq", torch.tensor([1.0, 0.25]), persistent=False)
    model.first.weight.data = torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]])
    model.bias = nn.Parameter(torch.tensor([0.5, 2.0]))
    found = details_of(model, "INI-1", "MIS-1", "MEM-1", missing=("first.weight", "bias"))

    assert found["inv_freq"]["values"] == [1.0, 0.25]
    assert found["first.weight"]["mean"] == 0.0
    assert found["first.weight"]["std"] == pytest.approx(1.2**0.5)
    assert found["first.weight"]["kurtosis"] == pytest.approx(1 / 1.44)
    assert (found["bias"]["least"], found["bias"]["most"]) == (0.5, 2.0)
    assert not found["first.weight"]["mapped"]
    assert "mean" not in found["copied.weight"], "the loading info does not name it"


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_nan_is_seen_in_floats_of_one_byte(dtype: torch.dtype) -> None:
    model = nn.Module()
    model.register_buffer("scale", torch.tensor([1.0, torch.nan]).to(dtype))
    model.register_buffer("whole", torch.tensor([1.0, 2.0]).to(dtype))

    assert {name: facts["nan"] for name, facts in details_of(model).items()} == {
        "scale": True,
        "whole": False,
    }


def test_facts_are_noted_before_the_forward_changes_the_model(case: Callable[[str], Case]) -> None:
    """As a Switch Transformer casts its routers when it runs."""

    def writing(*args: Any, **options: Any) -> Any:
        model, info = reference(*args, **options)
        model.model.norm.register_forward_pre_hook(lambda module, _: module.double() and None)
        model.model.norm.register_forward_hook(lambda module, _, output: output.float())
        return model, info

    cited = dataclasses.replace(case("res/single"), clauses=("MAP-1", "DTY-7"))
    loaded = observe(cited, writing)

    assert loaded.model is not None
    assert loaded.model.model.norm.weight.dtype == torch.float64, "the forward ran"
    assert loaded.observation.tensors["model.norm.weight"]["dtype"] == "torch.float32"
    assert objections(cited, loaded.observation) == ()


def test_an_observation_is_plain_data(case: Callable[[str], Case]) -> None:
    """JSON holds all of it, so that an old run can be judged again."""
    for name in ("out/f32-3", "mem/casting", "sta/threads", "mis/inner-weight"):
        observation = seen(case(name), reference)
        again = Observation.of(json.loads(json.dumps(dataclasses.asdict(observation))))
        assert objections(case(name), again) == objections(case(name), observation) == ()


# --- the process ---

HELD: list[Any] = []


def _set_environment() -> None:
    os.environ["LEFT_BEHIND_BY_A_LOADER"] = "1"


def _open() -> None:
    HELD.append(Path(__file__).open())  # noqa: SIM115  left open on purpose


def _replace() -> None:
    original = nn.Module.register_parameter
    nn.Module.register_parameter = functools.partialmethod(original)  # type: ignore[assignment]


def _read_standard_input() -> str:
    return sys.stdin.read()  # that of the time of the load


DISTURBANCES: dict[str, Callable[[], Any]] = {
    "default_dtype": lambda: torch.set_default_dtype(torch.float64),
    "default_device": lambda: torch.set_default_device("meta"),
    "grad_enabled": lambda: torch.set_grad_enabled(False),
    "threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "rng": lambda: torch.rand(1),
    "python_rng": random.random,
    "input_reads": _read_standard_input,
    "numpy_rng": numpy.random.rand,
    "environment": _set_environment,
    "warning_filters": lambda: warnings.simplefilter("ignore", UserWarning),
    "open_files": _open,
    "library": _replace,
}


@pytest.fixture
def undisturbed() -> Iterator[None]:
    """Whatever a test's loader does to the process is undone after it."""
    threads, environment, filters = torch.get_num_threads(), dict(os.environ), warnings.filters[:]
    library = Snapshot()
    yield
    library.put_back()
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    torch.set_num_threads(threads)
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    warnings.filters[:] = filters
    while HELD:
        HELD.pop().close()


def disturbing(fact: str, fails: bool) -> Callable[..., nn.Module]:
    model = Tiny()

    def loader(model_class: Any, source: str, **options: Any) -> nn.Module:
        DISTURBANCES[fact]()
        if fails:
            raise ValueError("and now this")
        return model

    return loader


def test_every_fact_of_the_process_is_disturbed_here() -> None:
    assert set(base_state(Snapshot())) == set(DISTURBANCES)


def test_a_process_left_alone_is_the_same_before_and_after(empty_case: Case) -> None:
    state = seen(empty_case, loads(Tiny())).state

    assert state["before"] == state["after"]


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("fact", DISTURBANCES)
def test_a_disturbed_process_is_noticed(empty_case: Case, fact: str, fails: bool) -> None:
    state = seen(empty_case, disturbing(fact, fails)).state

    assert {name for name in state["before"] if state["before"][name] != state["after"][name]} == {
        fact
    }


# Not put back, and noted anew each time: a file left open, generators that no load draws from.
LEFT = ("open_files", "python_rng", "numpy_rng")


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize(
    ("fact", "fails"),
    [(fact, fails) for fact in DISTURBANCES if fact not in LEFT for fails in (False, True)],
)
def test_a_disturbance_does_not_leak_into_the_next_observation(
    empty_case: Case, fact: str, fails: bool
) -> None:
    first = seen(empty_case, disturbing(fact, fails)).state

    second = seen(empty_case, loads(Tiny())).state

    assert second["before"] == first["before"]
