"""Cases of stage MEM: memory."""

from __future__ import annotations

from conformance.cases.case import TWO_SHARDS, Case, Torch

# `torch_dtype` is known to every release (DTY-4).
FLOAT32 = {"torch_dtype": Torch("float32")}
BFLOAT16 = {"torch_dtype": Torch("bfloat16")}

CASES = [
    Case("mem/views", ("MEM-1",), "llama-bf16", options={"torch_dtype": "auto"}),
    Case("mem/views-sharded", ("MEM-1",), TWO_SHARDS, options={"torch_dtype": "auto"}),
    Case("mem/let-go", ("MEM-2",), "llama-bf16", options=FLOAT32),
    Case("mem/let-go-sharded", ("MEM-2",), TWO_SHARDS, options=BFLOAT16),
    Case("mem/casting", ("MEM-3", "MEM-2"), "llama-bf16-wide-8", options=FLOAT32),
    Case("mem/casting-down", ("MEM-3", "MEM-2"), "llama-f32-wide-8", options=BFLOAT16),
]
