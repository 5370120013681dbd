"""TIE: tied weights."""

from __future__ import annotations

from conformance.case import Case

CASES = [
    Case("tie/embedding-only", ("TIE-1", "INF-2"), "llama-tied-embedding"),
    Case("tie/embedding-only-sharded", ("TIE-1",), "llama-tied-embedding-3"),
    Case(
        "tie/embedding-only-cast",
        ("TIE-1",),
        "llama-tied-embedding",
        options={"dtype": "float16"},
    ),
    Case("tie/head-only", ("TIE-2", "INF-2", "MIS-3"), "llama-tied-head"),
    Case(
        "tie/head-only-cast",
        ("TIE-2", "MIS-3"),
        "llama-tied-head",
        options={"dtype": "bfloat16"},
    ),
    Case("tie/equal", ("TIE-3",), "llama-tied-equal"),
    Case("tie/equal-cast", ("TIE-3",), "llama-tied-equal", options={"dtype": "float16"}),
    Case("tie/different", ("TIE-4",), "llama-tied-separate"),
    Case("tie/untied-equal", ("TIE-5",), "llama-untied-equal"),
    Case("tie/untied-different", ("TIE-5",), "llama-f32"),
    Case("tie/untied-embedding-only", ("TIE-6", "INF-2"), "llama-untied-embedding"),
    Case(
        "tie/untied-by-override",
        ("TIE-6", "CFG-3"),
        "llama-tied-embedding",
        options={"tie_word_embeddings": False},
    ),
    Case("tie/neither", ("TIE-7", "INF-2", "MIS-2"), "llama-tied-neither"),
    Case(
        "tie/neither-bf16", ("TIE-7", "MIS-2"), "llama-tied-neither", options={"dtype": "bfloat16"}
    ),
]
