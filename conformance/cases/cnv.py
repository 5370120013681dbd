"""Cases of stage CNV: stored tensors that a release converts."""

from __future__ import annotations

from typing import Any

from conformance.cases.case import IN_MEMORY, Case

EXPERTS = ("CNV-1", "INF-2", "INF-3", "OUT-1")
MIXTRAL = "transformers:MixtralForCausalLM"


def converted(name: str, recipe: str = "mixtral", **more: Any) -> Case:
    """A mixture of experts in its published layout."""
    return Case(f"cnv/{name}", EXPERTS, recipe, model=MIXTRAL, **more)


CASES = [
    converted("mixtral", options={"torch_dtype": "auto"}, greedy=True),
    converted("mixtral-sharded", "mixtral-3", options={"torch_dtype": "auto"}),
    converted("mixtral-cast", options={"torch_dtype": "bfloat16"}),
    converted("mixtral-map", "mixtral-3", options={"device_map": "cpu", "torch_dtype": "auto"}),
    converted("mixtral-state-dict", given=None, options=IN_MEMORY),
    converted("mixtral-saved", options={"torch_dtype": "auto"}, saved=True),
]
