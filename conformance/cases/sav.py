"""Cases of stage SAV: what was loaded can be saved."""

from __future__ import annotations

from typing import Any

from conformance.cases.case import BASE, Case, EmptyFolder
from conformance.cases.cnv import MIXTRAL, TABLE
from conformance.cases.map import WITHOUT_PREFIX
from conformance.cases.off import ALL_LAYERS, ONE_LAYER

EVERY = ("SAV-1", "SAV-2", "SAV-4", "SAV-5", "SAV-6", "SAV-7")
TIED = ("SAV-3", *EVERY)
FLOAT32 = {"torch_dtype": "float32"}
BFLOAT16 = {"torch_dtype": "bfloat16"}
SMALLER = {"ignore_mismatched_sizes": True, "vocab_size": 100}


def saved(name: str, recipe: str = "llama-f32", *clauses: str, **more: Any) -> Case:
    """A model that is loaded and saved."""
    return Case(f"sav/{name}", clauses or EVERY, recipe, **more)


def on_disk(device_map: Any) -> dict[str, Any]:
    """Options that leave a part of the model on disk."""
    return {"device_map": device_map, "offload_folder": EmptyFolder()}


CASES = [
    saved("as-stored", "llama-f32-2"),
    saved("cast", "llama-bf16", options=FLOAT32),
    saved("base-in-head", "llama-base-2"),
    saved("head-in-base", model=BASE),
    saved("tied", "llama-tied-embedding", *TIED),
    saved("tied-equal", "llama-tied-equal-3", *TIED, "TIE-3"),
    saved(
        "key-mapping",
        "llama-f32",
        *(*EVERY, "MAP-6"),
        faults=("module-prefix",),
        options=WITHOUT_PREFIX,
    ),
    saved(
        "two-mapped-to-one",
        "llama-f32",
        *("SAV-7", "MAP-10"),
        options={"key_mapping": {r"layers\.0\.input_layernorm": "layers.1.input_layernorm"}},
    ),
    saved(
        "legacy-names",
        faults=("legacy-norm-names",),
        model="conformance.world.user_models:WithLayerNorm",
    ),
    saved("mismatched", options=SMALLER),
    saved("disk", "llama-f32-3", options=on_disk(ONE_LAYER)),
    saved("mixtral", "mixtral", model=MIXTRAL),
    saved("mixtral-cast", "mixtral", model=MIXTRAL, options=BFLOAT16),
    saved("mixtral-disk", "mixtral-3", model=MIXTRAL, options=on_disk(ALL_LAYERS)),
    saved(
        "mixtral-merged",
        "mixtral",
        "SAV-1",
        faults=("experts-merged",),
        model=MIXTRAL,
        needs=TABLE,
    ),
    saved(
        "registered-by-the-user",
        faults=("unknown-type",),
        model="conformance.world.user_shapes:WithFusedMlp",
        needs=TABLE,
    ),
]
