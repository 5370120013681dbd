"""Options and config fields of wrong types, sizes and signs: a model, or a LoadError naming them.

Nothing is allocated for what is then refused. `-m slow` draws pairs of them, and many more.
"""

from __future__ import annotations

import json
import logging
import math
import resource
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM

import reference_loader
from conformance_fixtures.write import materialise
from reference_loader.errors import LoadError, ShapeMismatch, shown
from reference_loader.llama import Llama
from reference_loader.options import REFUSED, WITHOUT_EFFECT, Options


@pytest.fixture(autouse=True)
def unlogged() -> Iterator[None]:
    """Values stand in what transformers logs; pytest-xdist cannot send a lone surrogate."""
    logging.disable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


#: What JSON can hold and what only Python can; each is wrong for some option or field.
JSON: list[Any] = [
    *(None, True, False, 0, 1, -1, 3, 7, 64, 2**20, 2**31, 2**63, 10**30, -(2**40)),
    *(0.0, 0.5, -1.5, 1e9, math.nan, math.inf, -math.inf),
    *("", "a", "cpu", "auto", "float32", "0", "../..", "a\0b", "\ud800", "x" * 300, "a/b", "{}"),
    *([], [1], ["a"], [None], [[]], [-1, 2**40], {}, {"a": 1}, {"": "cpu"}, {"a": None}),
]
PYTHON: list[Any] = [
    *(b"", b"abc", (), ("a",), {1}, frozenset(), 1j, object(), object, len, Path("a"), range(3)),
    *(torch.float32, torch.int8, torch.device("cpu"), torch.ones(2), torch.ones(2, device="meta")),
    *(
        {1: 2},
        {"cpu": -1},
        {"": {}},
        {None: None},
        {"a": torch.ones(1)},
        nn.Linear,
        nn.Linear(1, 1),
    ),
]
OPTIONS = sorted(Options.names() | REFUSED | {"torch_dtype", "an_argument"})
#: One line of code refuses them all.
ALIKE = sorted(REFUSED)[1:]
CLASSES = {"none": None, "class": LlamaForCausalLM, "auto": AutoModelForCausalLM, "plain": Llama}
ENTRIES = {"load": reference_loader.from_pretrained, "plan": reference_loader.plan}
#: They read a config as those do that are left.
MORE = ("class", "auto")
FOLDER = materialise("llama-f32")
TEXT = json.loads((FOLDER / "config.json").read_text())
FIELDS = sorted(
    {*TEXT, "rope_theta", "rope_scaling", "num_labels", "id2label", "transformers_weights"}
    | {"auto_map", "_attn_implementation", "text_config", "layer_types", "generation_config"}
)


def peak() -> int:
    """The most memory that the process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def refusal(load: Callable[..., Any], *source: Any, **options: Any) -> LoadError | None:
    """What a call raises if it is a LoadError, before anything large is made of the values."""
    before = peak()
    try:
        load(*source, **options)
    except LoadError as error:
        assert peak() - before < 2**26
        return error
    return None


def named(error: LoadError | None, name: str, value: Any) -> bool:
    """Whether an error says which option or field it is about, or quotes the value."""
    quoted = value.__name__ if isinstance(value, type) else value
    said = [name.removeprefix("torch_"), name.replace("_", " ")]
    said += [shown(str(quoted))] * (isinstance(quoted, (str, Path)) and bool(str(quoted)))
    return error is None or any(each in str(error) for each in said)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in ALIKE)) for name in OPTIONS]
)
def test_a_value_of_any_type_as_an_option(name: str, monkeypatch: Any, tmp_path: Path) -> None:
    """Every value for every option."""
    monkeypatch.chdir(tmp_path)  # a path may be relative
    for value in [*JSON, *PYTHON]:
        error = refusal(reference_loader.from_pretrained, FOLDER, **{name: value})
        assert named(error, name, value), (value, error)


def test_a_value_of_any_type_where_it_has_no_effect() -> None:
    """All such options at once."""
    for value in [*JSON, *PYTHON]:
        given = dict.fromkeys(WITHOUT_EFFECT, value)
        assert refusal(reference_loader.from_pretrained, FOLDER, **given) is None


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_value_of_any_type_as_the_source(entry: str, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for value in [*JSON, *PYTHON]:
        error = refusal(ENTRIES[entry], value, model_class=LlamaForCausalLM)
        assert error is not None, value


@pytest.mark.parametrize("kind", ["class", "plain"])
def test_a_value_of_any_type_as_a_state_dict(kind: str) -> None:
    """And as one tensor of it, and as the config beside it."""
    options: dict[str, Any] = {
        "state_dict": load_file(FOLDER / "model.safetensors"),
        "config": FOLDER,
        "model_class": CLASSES[kind],
    }
    for value in [*JSON, *PYTHON]:
        with_value = {**options["state_dict"], "lm_head.weight": value}
        for name, held in (("state_dict", value), ("state_dict", with_value), ("config", value)):
            refusal(reference_loader.from_pretrained, None, **{**options, name: held})


of_every_kind = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in MORE)) for kind in CLASSES]
)


def edited(folder: Path, fields: dict[str, Any]) -> Path:
    """The checkpoint with other fields in its config."""
    (folder / "config.json").write_text(json.dumps({**TEXT, **fields}))
    link = folder / "model.safetensors"
    if not link.exists():
        link.symlink_to(FOLDER / "model.safetensors")
    return folder


@pytest.mark.slow
@of_every_kind
@pytest.mark.parametrize("name", FIELDS)
def test_a_value_of_any_type_as_a_field(name: str, kind: str, tmp_path: Path) -> None:
    """Every value for every field; a shape that differs is named by its parameter."""
    for value in JSON:
        folder = edited(tmp_path, {name: value})
        error = refusal(reference_loader.from_pretrained, folder, model_class=CLASSES[kind])
        fits = isinstance(value, (int, float)) and value > 0
        assert fits or isinstance(error, ShapeMismatch) or named(error, name, value), (value, error)


@pytest.mark.parametrize("field", ["num_hidden_layers", "vocab_size", "max_position_embeddings"])
@of_every_kind
def test_a_size_that_no_model_has_costs_nothing(kind: str, field: str, tmp_path: Path) -> None:
    """Not even in Python's own memory; nor does a JSON file cost more than it holds."""
    for value in (2_000, 10**9, 10**30, 1e300):
        tracemalloc.start()
        refusal(reference_loader.plan, edited(tmp_path, {field: value}), model_class=CLASSES[kind])
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert used < 2**26


some_options = st.dictionaries(
    st.sampled_from(OPTIONS), st.sampled_from([*JSON, *PYTHON]), max_size=3
)
some_fields = st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(JSON), max_size=3)


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("kind", CLASSES)
@settings(max_examples=1000, suppress_health_check=list(HealthCheck))
@given(options=some_options, fields=some_fields)
def test_values_of_any_type_together(
    entry: str, kind: str, options: Any, fields: Any, tmp_path: Path
) -> None:
    folder = edited(tmp_path, fields)
    refusal(ENTRIES[entry], folder, **{"model_class": CLASSES[kind], **options})
