"""Cases of stage OUT: outputs."""

from __future__ import annotations

from conformance.cases.case import Case

CASES = [
    *(
        Case(f"out/{name}", ("OUT-1", "OUT-2", "OUT-3", "OUT-4"), f"llama-{name}", greedy=True)
        for name in ("f32-3", "f16-2", "bf16-2", "mixed-2", "tied-embedding", "old-config")
    ),
    Case("out/eager", ("OUT-1", "OUT-2"), "llama-f32", options={"attn_implementation": "eager"}),
    Case("out/float64", ("OUT-1", "OUT-2"), "llama-f32", options={"dtype": "float64"}),
]
