"""INI: the empty model."""

from __future__ import annotations

from conformance.case import CLASSIFIER, TWO_SHARDS, Case

CASES = [
    Case("ini/constructor-buffer", ("INI-2", "OUT-1"), model="conformance.models:WithBuffer"),
    Case(
        "ini/constructor-buffer-bf16",
        ("INI-2",),
        "llama-bf16-2",
        model="conformance.models:WithBuffer",
    ),
    Case("ini/frozen-embedding", ("INI-3",), model="conformance.models:WithFrozenEmbedding"),
    Case(
        "ini/frozen-embedding-tied",
        ("INI-3", "TIE-1"),
        "llama-tied-embedding",
        model="conformance.models:WithFrozenEmbedding",
    ),
    Case("ini/hook", ("INI-5", "OUT-1"), model="conformance.models:WithHook"),
    Case(
        "ini/hook-cast",
        ("INI-5",),
        TWO_SHARDS,
        model="conformance.models:WithHook",
        options={"dtype": "bfloat16"},
    ),
    Case("ini/no-memory-left-out", ("INI-4",), "llama-f32-7", model=CLASSIFIER),
    Case("ini/no-memory-left-out-bf16", ("INI-4",), "llama-bf16", model=CLASSIFIER),
]
