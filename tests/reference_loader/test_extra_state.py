"""Extra state, torch's third kind of state: handed over as it is stored. MAP-9."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

import reference_loader
from conformance.world.user_models import WithExtraState
from reference_loader.model.skeleton import EXTRA_STATE, build, put

Checkpoint = Callable[..., Path]


class Noted(nn.Module):
    """Its extra state is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.notes: Any = {"steps": 3}

    def get_extra_state(self) -> Any:
        return self.notes

    def set_extra_state(self, state: Any) -> None:
        self.notes = state


def test_a_skeleton_has_a_slot_for_it_whatever_it_is() -> None:
    skeleton = build(Noted, torch.float16)

    assert set(skeleton.slots) == {"weight", EXTRA_STATE}
    assert skeleton.slots[EXTRA_STATE].kind == EXTRA_STATE


def test_put_calls_the_modules_own_method() -> None:
    whole = nn.Sequential(nn.ReLU(), Noted())
    state = torch.arange(5)

    put(whole, "1._extra_state", state)

    assert whole[1].notes is state


@pytest.mark.parametrize("dtype", [None, "float16", "float64"])
@pytest.mark.parametrize(
    ("fault", "expected"),
    [("extra-state", [2.0, 0.25]), ("longer-extra-state", [2.0, 0.25, 0.5])],
)
def test_it_arrives_as_it_is_stored(
    checkpoint: Checkpoint, fault: str, expected: list[float], dtype: str | None
) -> None:
    model, info = reference_loader.from_pretrained(
        checkpoint("llama-f32-3", fault),
        model_class=WithExtraState,
        dtype=dtype,
        output_loading_info=True,
    )

    assert model.counter.state.dtype == torch.float32
    assert model.counter.state.tolist() == expected
    assert not any(info.values())


def test_without_one_the_constructors_stays_and_the_key_is_missing(checkpoint: Checkpoint) -> None:
    model, info = reference_loader.from_pretrained(
        checkpoint("llama-f32"), model_class=WithExtraState, output_loading_info=True
    )

    assert model.counter.state.tolist() == [1.0, 1.0]
    assert info["missing_keys"] == {"counter._extra_state"}


def test_for_a_model_without_it_it_is_left_over(checkpoint: Checkpoint) -> None:
    _, info = reference_loader.from_pretrained(
        checkpoint("llama-f32", "extra-state"),
        model_class=LlamaForCausalLM,
        output_loading_info=True,
    )

    assert info["unexpected_keys"] == {"counter._extra_state"}


def test_it_is_on_the_device_of_its_module(checkpoint: Checkpoint) -> None:
    model = reference_loader.from_pretrained(
        checkpoint("llama-f32", "extra-state"), model_class=WithExtraState, device_map="cpu"
    )

    assert model.counter.state.device.type == "cpu"
