"""Llama-2-7B onto one GPU: every key and every output as stock has them, within the memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conformance.cases.case import CAUSAL, Case, Torch
from reference_loader import from_pretrained, plan
from reference_loader.errors import LoadError

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

CLAUSES = ("MAP-1", "DTY-7", "INI-1", "INF-1", "INF-2", "INF-3", "OUT-1", "OUT-3", "OUT-4")
PROMPT, NEW, END = 8, 64, 2
LAYERS = 32

# Bytes beside the model, while it is loaded.
MOST_BESIDE = 200 * 10**6
CARD = 24 * 2**30


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_it_is_what_stock_makes_of_it(
    dtype: str, llama2_7b: Path, on_the_gpu: Any, against_stock: Callable[[Case], Any]
) -> None:
    case = Case(
        f"own/llama2-7b/{dtype}",
        CLAUSES,
        recipe="",
        model=CAUSAL,
        folder=llama2_7b,
        options={"dtype": Torch(dtype), "device_map": 0},
        greedy=True,
        device="cuda",
        new_tokens=NEW,
    )
    left, divergences = against_stock(case)
    assert divergences == []
    assert left.exception is None
    assert sum(facts["kind"] == "parameter" for facts in left.tensors.values()) == 291
    assert {f"hidden_states.{n}" for n in range(LAYERS + 1)} <= left.outputs.keys()
    tokens = left.outputs["tokens"]
    assert len(tokens) == PROMPT + NEW or tokens[-1] == END


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_gpu_holds_the_model_and_little_beside(
    dtype: str, llama2_7b: Path, held: Callable[[], int], record_property: Any
) -> None:
    before = held()
    torch.cuda.reset_peak_memory_stats(0)
    model = from_pretrained(llama2_7b, dtype=dtype, device_map=0)
    size = sum(parameter.nbytes for parameter in model.parameters())
    peak = torch.cuda.max_memory_allocated(0) - before
    record_property("peak", peak)
    assert size == 2 * 6_738_415_616
    assert peak <= size + MOST_BESIDE


def test_float32_does_not_fit_24_gib_and_is_not_tried(
    llama2_7b: Path, held: Callable[[], int]
) -> None:
    """The plan says it before a weight is read; the load is refused with what to do."""
    options = {"device_map": "auto", "max_memory": {0: CARD, "cpu": 0}}
    fitting, decided = (plan(llama2_7b, dtype=d, **options) for d in ("float16", "float32"))
    assert set(map(str, fitting.device_map.values())) == {"0"}
    assert "disk" in decided.device_map.values()
    before = held()
    torch.cuda.reset_peak_memory_stats(0)
    with pytest.raises(LoadError, match=r"max_memory allows 25,769,803,776.*smaller `dtype`"):
        from_pretrained(llama2_7b, dtype="float32", device_map=0, max_memory={0: CARD})
    assert torch.cuda.max_memory_allocated(0) == before
    assert held() == before
