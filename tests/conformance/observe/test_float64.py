"""How close logits are to float64, and the models of which nothing can be said."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from conformance.observe.float64 import accuracy


@pytest.fixture
def model(checkpoint: Any) -> Any:
    return LlamaForCausalLM.from_pretrained(checkpoint("llama-f32"))


def test_a_plain_llama_is_held_against_float64(model: Any) -> None:
    found = accuracy(model)
    assert found is not None
    assert 0 < found["unit"] < 1e-6
    assert found["error"] < 64


def test_another_forward_is_further_from_the_truth(model: Any) -> None:
    model.model.norm.variance_epsilon = 1e-3
    found = accuracy(model)
    assert found is not None
    assert found["error"] > 64


@pytest.mark.parametrize("spoil", ["meta", "zero", "failing", "none"])
def test_of_what_computes_nothing_nothing_is_said(model: Any, spoil: str) -> None:
    """A probe that ended there would take its case for one without a verdict."""
    if spoil == "meta":
        model = model.to("meta")
    elif spoil == "zero":
        torch.nn.init.zeros_(model.lm_head.weight)
    elif spoil == "failing":
        model.lm_head = None
    assert accuracy(None if spoil == "none" else model) is None
