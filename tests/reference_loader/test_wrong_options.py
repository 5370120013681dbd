"""Wrong options and config fields end in a `LoadError` that names them; forks and draws."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from conformance_fixtures.write import materialise
from reference_loader import from_pretrained
from reference_loader.errors import BadOptions, LoadError
from reference_loader.model import skeleton
from reference_loader.model.draws import DrawsApart


@pytest.fixture(scope="module")
def folder() -> Path:
    return materialise("llama-f32")


WRONG = {
    "subfolder": [5, b"x"],
    "variant": [3],
    "use_safetensors": ["yes"],
    "ignore_mismatched_sizes": ["no"],
    "key_mapping": [["a"], {5: "x"}, {"a": 5}, {"model": r"\9"}, {"model": r"\g<no>"}, {"(": ""}],
    "max_memory": [5, {"cpu": "abc"}, {"cpu": None}, {"cpu": 1.5e9}, {"cpu": -1}, {"cpu": True}],
    "device_map": [{"": 10**6}, "nowhere", {"": "xpu:7"}, 1.5],
    "generation_config": [{"max_length": 3}],
    "offload_folder": [7],
    "token": [1.5],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_value_is_named(folder: Path, name: str, value: Any) -> None:
    device_map = {} if name == "device_map" else {"device_map": {"": "cpu"}}
    with pytest.raises(LoadError, match=name):
        from_pretrained(folder, **device_map, **{name: value})


@pytest.mark.parametrize("source", [5, b"bytes", "a" * 300])
def test_a_source_that_is_none(source: Any) -> None:
    with pytest.raises(LoadError):
        from_pretrained(source)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"lm_head.weight": None}, "NoneType"),
        ({"lm_head.weight": [1.0]}, "list"),
        ({"state_dict": {}}, r"pass `state_dict\['state_dict'\]`"),
        ({5: torch.ones(1)}, "not text"),
        ({"lm_head.weight": torch.ones(2, 2).to_sparse()}, "sparse"),
        ({"lm_head.weight": torch.ones(2, device="meta")}, "meta"),
    ],
)
def test_an_entry_of_a_state_dict_that_is_no_tensor_is_named(
    folder: Path, entry: dict[Any, Any], said: str
) -> None:
    with pytest.raises(BadOptions, match=said):
        from_pretrained(None, config=str(folder), state_dict=entry)


def test_a_tensor_of_inference_mode_becomes_a_parameter(folder: Path) -> None:
    model = from_pretrained(folder)
    with torch.inference_mode():
        held = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    again = from_pretrained(None, config=model.config, state_dict=held, model_class=type(model))
    assert all(parameter.requires_grad for parameter in again.parameters())


@pytest.mark.parametrize(
    "fields",
    [
        {"architectures": 7},
        {"architectures": [7]},
        {"transformers_weights": 5},
        {"transformers_weights": ["model.safetensors"]},
        {"vocab_size": 10**13},
        {"hidden_size": -1},
        {"num_attention_heads": 0},
    ],
)
def test_a_wrong_config_field_is_a_load_error(own: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(LoadError):
        from_pretrained(own("llama-f32", **fields))


@pytest.mark.parametrize("mode", ["auto", "balanced", "sequential"])
def test_the_disk_may_have_a_budget(folder: Path, mode: str, tmp_path: Path) -> None:
    budgets = {"cpu": "1GB", "disk": "1GB"}
    model = from_pretrained(folder, device_map=mode, max_memory=budgets, offload_folder=tmp_path)
    assert not any(parameter.is_meta for parameter in model.parameters())


def test_a_child_of_a_process_that_builds_a_model_can_build_too() -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with skeleton._building[0]:
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if not child:
        signal.alarm(10)
        with skeleton._building[0]:
            os._exit(0)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


DRAWS = {
    "randn": lambda: torch.randn(4),
    "in place": lambda: torch.empty(4).uniform_(),
    "init": lambda: nn.init.kaiming_uniform_(torch.empty(4, 4)),
    "permutation": lambda: torch.randperm(9),
    "dropout": lambda: nn.functional.dropout(torch.ones(9)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_what_a_constructor_draws_is_not_taken_from_the_process(name: str) -> None:
    """The values are those that would be drawn, and the process's generator stays."""
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with DrawsApart():
        drawn = DRAWS[name]()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn, DRAWS[name]())


def test_a_copy_of_a_part_that_the_constructor_ties_stays_tied() -> None:
    import copy

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(2, 2)
            self.second = copy.deepcopy(self.first)
            self.third = nn.Linear(2, 2)
            self.third.weight = self.second.weight

    built = skeleton.build(Model, torch.float32)
    assert ("second.weight", "third.weight") in built.ties
    assert built.model.second.weight is built.model.third.weight


def test_what_is_tied_to_a_tensor_of_another_shape_is_not_missing(own: Any) -> None:
    """INF-2: only the embedding is stored, and does not fit."""
    folder = own("llama-tied-embedding", vocab_size=64)
    model, info = from_pretrained(folder, ignore_mismatched_sizes=True, output_loading_info=True)
    assert info["missing_keys"] == set()
    assert {name for name, *_ in info["mismatched_keys"]} == {"model.embed_tokens.weight"}
    assert model.lm_head.weight is model.model.embed_tokens.weight
