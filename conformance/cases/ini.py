"""Cases of stage INI: model construction and initialisation."""

from __future__ import annotations

from typing import Any

from conformance.cases.case import CLASSIFIER, TWO_SHARDS, Case

# The old name and an explicit "auto": what every release knows.
AUTO = {"torch_dtype": "auto"}


def ours(name: str, clauses: tuple[str, ...], model: str, recipe: str = "", **more: Any) -> Case:
    """A load into one of our model classes, in the dtype that is stored."""
    recipe = recipe or ("llama-bf16-2" if name.endswith("-bf16") else "llama-f32")
    options = AUTO | more.pop("options", {})
    model = f"conformance.world.user_models:{model}"
    return Case(f"ini/{name}", clauses, recipe, model=model, options=options, **more)


NO_NORM, NO_HEAD = ("missing-norm",), ("missing-head",)

CASES = [
    ours("constructor-buffer", ("INI-2", "OUT-1"), "WithBuffer"),
    ours("constructor-buffer-bf16", ("INI-2",), "WithBuffer"),
    ours("several-buffers", ("INI-2",), "WithSeveralBuffers"),
    ours("several-buffers-bf16", ("INI-2",), "WithSeveralBuffers"),
    ours("frozen-embedding", ("INI-3",), "WithFrozenEmbedding"),
    ours(
        "frozen-embedding-tied", ("INI-3", "TIE-1"), "WithFrozenEmbedding", "llama-tied-embedding"
    ),
    ours("frozen-missing", ("INI-3", "MIS-1", "INF-2"), "WithFrozenEmbedding", "llama-untied-head"),
    ours("hook", ("INI-5", "OUT-1"), "WithHook"),
    ours("hook-cast", ("INI-5",), "WithHook", TWO_SHARDS, options={"torch_dtype": "bfloat16"}),
    ours("marked-weight", ("INI-5",), "WithMarkedWeight"),
    ours("marked-weight-missing", ("INI-5", "MIS-1"), "WithMarkedWeight", faults=NO_NORM),
    ours("parameter-class", ("INI-6",), "WithOwnParameterClass"),
    ours("parameter-class-bf16", ("INI-6",), "WithOwnParameterClass"),
    ours("parameter-class-missing", ("INI-6", "MIS-1"), "WithOwnParameterClass", faults=NO_NORM),
    ours("without-post-init", ("INI-7", "MAP-1"), "WithoutPostInit"),
    ours("without-post-init-bf16", ("INI-7",), "WithoutPostInit"),
    ours("without-post-init-missing", ("INI-7", "MIS-1"), "WithoutPostInit", faults=NO_NORM),
    ours("persistent-buffer-missing", ("INI-8", "INF-2"), "WithPersistentBuffer"),
    ours("persistent-buffer-missing-bf16", ("INI-8", "INF-2"), "WithPersistentBuffer"),
    ours("persistent-buffer-stored", ("INI-8",), "WithBufferInside", faults=("unexpected-key",)),
    ours("transposed-head", ("INI-9", "MAP-1"), "WithTransposedHead"),
    ours("transposed-head-missing", ("INI-9", "MIS-1"), "WithTransposedHead", faults=NO_HEAD),
    ours("no-memory-first", ("INI-10",), "WithNotedMemory"),
    ours("no-memory-first-bf16", ("INI-10",), "WithNotedMemory"),
    ours("no-memory-first-tied", ("INI-10",), "WithNotedMemory", "llama-tied-embedding"),
    ours("bias-left-out", ("INI-4", "MIS-1", "INF-2"), "WithSkippedBias"),
    ours("bias-left-out-bf16", ("INI-4", "MIS-1"), "WithSkippedBias"),
    Case("ini/no-memory-left-out", ("INI-4",), "llama-f32-7", model=CLASSIFIER),
    Case("ini/no-memory-left-out-bf16", ("INI-4",), "llama-bf16", model=CLASSIFIER, options=AUTO),
]
