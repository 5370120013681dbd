"""Cases of stage SAV: what a loaded model writes when it is saved."""

from __future__ import annotations

from typing import Any

from conformance.cases.case import IN_MEMORY, TWO_SHARDS, Case, EmptyFolder
from conformance.cases.cnv import AUTO, MIXTRAL, TABLE

EVERY = ("SAV-1", "SAV-2", "SAV-3", "SAV-4")


def saved(name: str, recipe: str = "llama-f32", *clauses: str, **more: Any) -> Case:
    """A checkpoint that is loaded and saved again."""
    options = AUTO | more.pop("options", {})
    return Case(f"sav/{name}", (*EVERY, *clauses), recipe, options=options, **more)


CASES = [
    saved("single"),
    saved("sharded", TWO_SHARDS),
    saved("cast", options={"torch_dtype": "bfloat16"}),
    saved("tied", "llama-tied-embedding"),
    saved("state-dict", given=None, options=IN_MEMORY),
    saved(
        *("key-mapping", "llama-f32", "MAP-6"),
        faults=("module-prefix",),
        options={"key_mapping": {r"^module\.": ""}},
    ),
    saved("experts", "mixtral", model=MIXTRAL),
    saved("experts-cast", "mixtral-3", model=MIXTRAL, options={"torch_dtype": "bfloat16"}),
    saved(
        "experts-on-disk",
        "mixtral-3",
        model=MIXTRAL,
        options={
            "device_map": {
                **dict.fromkeys(("model.embed_tokens", "model.norm", "lm_head"), "cpu"),
                **{"model.rotary_emb": "cpu", "model.layers": "disk"},
            },
            "offload_folder": EmptyFolder(),
        },
        needs=TABLE,
    ),
    saved("experts-merged", "mixtral", faults=("experts-merged",), model=MIXTRAL, needs=TABLE),
    saved(
        "registered-by-the-user",
        faults=("unknown-type",),
        model="conformance.world.user_shapes:WithFusedMlp",
        needs=TABLE,
    ),
]
