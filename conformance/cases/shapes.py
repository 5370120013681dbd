"""Cases of shapes, sizes and counts that no other fixture has: stored, cast, sharded, on disk."""

from __future__ import annotations

from conformance.cases.case import TWO_SHARDS, Case, Torch, on_disk, placed

SHAPES = "conformance.world.user_shapes:WithEveryShape"
OLD_NORM = "conformance.world.user_shapes:WithOldWeightNorm"
EVERY = ("every-shape",)
DEEP = "llama-f32-deep-2"
# Buffers first: of a parameter, the check of MAP-1 or DTY-7 against the stored bytes says more.
LOADED = ("DTY-10", "MAP-1", "FMT-11", "INF-2", "INF-3", "MIS-3")
SHAPES_ON_DISK = {"model": "cpu", "lm_head": "cpu", "shapes": "disk"}
TENTH_ON_DISK = {
    "model.embed_tokens": "cpu",
    **{f"model.layers.{layer}": "disk" if layer >= 10 else "cpu" for layer in range(12)},
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "cpu",
}

CASES = [
    Case("shape/every", LOADED, faults=EVERY, model=SHAPES),
    Case("shape/every-sharded", LOADED, TWO_SHARDS, EVERY, SHAPES, plain=True),
    *(
        Case(
            f"shape/every-as-{name}",
            ("DTY-10", "DTY-7", "FMT-11", "INF-2"),
            recipe,
            EVERY,
            SHAPES,
            options={"torch_dtype": Torch(name)},
        )
        for name, recipe in (("bfloat16", TWO_SHARDS), ("float16", "llama-f32"))
    ),
    Case("shape/every-pickled", ("RES-8", *LOADED), faults=(*EVERY, "pickled"), model=SHAPES),
    placed("shape/every-placed", "PLC-1", *LOADED, device_map="cpu", faults=EVERY, model=SHAPES),
    on_disk("shape/every-disk", "OFF-1", device_map=SHAPES_ON_DISK, faults=EVERY, model=SHAPES),
    on_disk(
        "shape/every-disk-bfloat16",
        "OFF-1",
        "DTY-10",
        device_map=SHAPES_ON_DISK,
        faults=EVERY,
        model=SHAPES,
        options={"torch_dtype": Torch("bfloat16")},
    ),
    Case("shape/dimensions", ("FMT-11",), faults=EVERY, model=SHAPES, plain=True),
    Case(
        "shape/dimensions-as-bfloat16",
        ("FMT-11",),
        TWO_SHARDS,
        EVERY,
        SHAPES,
        options={"torch_dtype": Torch("bfloat16")},
        plain=True,
    ),
    Case(
        "shape/old-weight-norm",
        ("MAP-8", "INF-2", "INF-3"),
        faults=("old-weight-norm",),
        model=OLD_NORM,
    ),
    Case(
        "shape/old-weight-norm-cast",
        ("MAP-8", "INF-2", "INF-3"),
        TWO_SHARDS,
        ("old-weight-norm",),
        OLD_NORM,
        options={"torch_dtype": Torch("bfloat16")},
    ),
    Case("shape/twelve-layers", ("MAP-1", "IDX-1", "INF-2"), DEEP),
    Case(
        "shape/twelve-layers-as-bfloat16",
        ("DTY-7", "IDX-1"),
        DEEP,
        options={"torch_dtype": Torch("bfloat16")},
        plain=True,
    ),
    placed("shape/twelve-layers-placed", "PLC-1", "MAP-1", device_map={"": "cpu"}, recipe=DEEP),
    on_disk("shape/twelve-layers-disk", "OFF-1", device_map=TENTH_ON_DISK, recipe=DEEP),
    Case(
        "shape/float64",
        ("MAP-1", "DTY-7"),
        faults=("stored-float64",),
        options={"torch_dtype": Torch("float64")},
    ),
    Case(
        "shape/float64-sharded",
        ("MAP-1", "DTY-7", "IDX-1"),
        TWO_SHARDS,
        ("stored-float64",),
        options={"torch_dtype": Torch("float64")},
        plain=True,
    ),
    *(
        Case(
            f"shape/float64-as-{name}",
            ("DTY-7",),
            faults=("stored-float64",),
            options={"torch_dtype": Torch(name)},
        )
        for name in ("float32", "bfloat16", "float16")
    ),
    placed(
        "shape/float64-placed",
        "PLC-1",
        "MAP-1",
        device_map={"": "cpu"},
        faults=("stored-float64",),
        options={"torch_dtype": Torch("float64")},
    ),
]
