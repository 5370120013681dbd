"""Cases of stage USE: what can be done with the model."""

from __future__ import annotations

from typing import Any

from conformance.cases.case import BASE, IN_MEMORY, TWO_SHARDS, Case, EmptyFolder
from conformance.cases.off import ONE_LAYER
from conformance.cases.tie import T5

# What holds of any model that is in memory whole.
TRAINED = ("USE-3", "USE-4", "USE-16")
KEPT = ("USE-5", "USE-6", "USE-7", "USE-8", "USE-9", "USE-10", "USE-17")
BUILT = ("USE-11", "USE-12", "USE-13", "USE-14", "USE-15")
FILES = ("MEM-4", "MEM-5", "MEM-6")
EVERY = ("USE-1", *TRAINED, *KEPT, *BUILT, *FILES)
LLAMA = ("USE-2", *EVERY)

# Nothing to train, and accelerate's hooks read the files while the model runs.
OFFLOADED = ("USE-3", "USE-11", "USE-12", "USE-15", "USE-16", "MEM-5")

OURS = "conformance.world.user_models"
ON_DISK = {"device_map": ONE_LAYER, "offload_folder": EmptyFolder()}
FLOAT32 = {"torch_dtype": "float32"}


def used(name: str, clauses: tuple[str, ...], recipe: str = "llama-f32", **more: Any) -> Case:
    """A model that is used after the load in every way that the clauses name."""
    return Case(f"use/{name}", clauses, recipe, **more)


CASES = [
    used("single", LLAMA, options={"torch_dtype": "auto"}),
    used("sharded", LLAMA, TWO_SHARDS),
    used("tied", ("TIE-1", *LLAMA), "llama-tied-embedding"),
    used("tied-head", ("TIE-2", *LLAMA, "MIS-3"), "llama-tied-head"),
    used("tied-equal", ("TIE-3", *LLAMA), "llama-tied-equal-3"),
    used("cast", (*LLAMA, "MEM-7"), "llama-bf16", options=FLOAT32),
    used("cast-down", (*LLAMA, "MEM-7"), options={"torch_dtype": "bfloat16"}),
    used("as-stored-bf16", LLAMA, "llama-bf16-2", options={"torch_dtype": "auto"}),
    used("map", LLAMA, options={"device_map": "cpu", "torch_dtype": "auto"}),
    used("state-dict", LLAMA, given=None, options=IN_MEMORY),
    used("base-in-head", EVERY, "llama-base-2"),
    used("head-in-base", EVERY, model=BASE),
    used("t5", ("MIS-3", *EVERY), "t5-tied-embedding", model=T5),
    used("own-class", EVERY, model=f"{OURS}:WithTransposedHead"),
    used("frozen", ("INI-3", *EVERY), model=f"{OURS}:WithFrozenEmbedding"),
    used("own-class-buffer", EVERY, model=f"{OURS}:WithBufferInside", faults=("unexpected-key",)),
    used("disk", OFFLOADED, "llama-f32-3", options=ON_DISK),
    used("disk-saved", ("USE-18",), "llama-f32-3", options=ON_DISK),
]
