"""Cases of stage DTY: dtype."""

from __future__ import annotations

from conformance.cases.case import Case, Torch, rejected

UNDECLARED = {"bf16": "llama-bf16-undeclared", "mixed": "llama-mixed-undeclared"}
CASTS = [
    ("f32", "bfloat16"),
    ("f32", "float16"),
    ("bf16-2", "float32"),
    ("f16-2", "float32"),
    ("f16-2", "bfloat16"),
    ("mixed-2", "float32"),
    ("mixed-2", "float16"),
    ("f32", "float64"),
]
BUFFERED = "conformance.world.user_models:WithOwnBuffers"
KEPT = "conformance.world.user_models:WithFloat32Norms"

CASES = [
    *(
        Case(f"dty/default-{name}", ("DTY-1", "MAP-1"), f"llama-{name}")
        for name in ("f16-2", "bf16-2", "mixed-2")
    ),
    Case("dty/none", ("DTY-1",), "llama-bf16", options={"dtype": None}),
    Case("dty/auto", ("DTY-1",), "llama-bf16", options={"dtype": "auto"}),
    *(
        Case(f"dty/undeclared-{name}", ("DTY-2",), recipe, options={"dtype": "auto"})
        for name, recipe in UNDECLARED.items()
    ),
    *(
        Case(
            f"dty/{source}-as-{dtype}",
            ("DTY-3", "DTY-7", "INI-1"),
            f"llama-{source}",
            options={"dtype": Torch(dtype)},
        )
        for source, dtype in CASTS
    ),
    *(
        Case(f"dty/by-name-{dtype}", ("DTY-3",), options={"dtype": dtype})
        for dtype in ("bfloat16", "float16")
    ),
    Case("dty/torch-dtype", ("DTY-4",), options={"torch_dtype": Torch("bfloat16")}),
    Case("dty/torch-dtype-by-name", ("DTY-4",), options={"torch_dtype": "float16"}),
    rejected("dty/nonsense", "DTY-5", "bfloat17", options={"dtype": "bfloat17"}),
    rejected("dty/nonsense-type", "DTY-5", "16", options={"dtype": 16}),
    rejected("dty/integer", "DTY-6", "int8", options={"dtype": Torch("int8")}),
    rejected("dty/integer-by-name", "DTY-6", "int64", options={"dtype": "int64"}),
    Case("dty/buffers-f16", ("DTY-8", "INI-1"), "llama-f16"),
    Case("dty/buffers-bf16", ("DTY-8", "INI-1"), "llama-bf16"),
    *(
        Case(f"dty/kept-{dtype}", ("DTY-9",), model=KEPT, options={"dtype": dtype})
        for dtype in ("float16", "bfloat16", "float32")
    ),
    # By the name that every release knows: T5 keeps a projection in float32 under float16 only.
    *(
        Case(
            f"dty/t5-kept-{name}",
            ("DTY-9",),
            "t5-tied-embedding",
            model="transformers:T5ForConditionalGeneration",
            options={"torch_dtype": Torch(name)},
        )
        for name in ("float16", "bfloat16")
    ),
    *(
        Case(f"dty/own-buffers-{name}", ("DTY-10",), recipe, ("own-buffers",), model=BUFFERED)
        for name, recipe in (("f32", "llama-f32"), ("bf16", "llama-bf16-2"))
    ),
    Case(
        "dty/own-buffers-cast",
        ("DTY-10",),
        faults=("own-buffers",),
        model=BUFFERED,
        options={"dtype": Torch("float16")},
    ),
    *(
        Case(
            f"dty/both-names-{name}",
            ("DTY-11",),
            options={"dtype": Torch(name), "torch_dtype": Torch("float64")},
        )
        for name in ("float16", "bfloat16")
    ),
    Case("dty/declared-f16", ("DTY-12", "DTY-7"), "llama-bf16-declared-f16"),
    Case(
        "dty/declared-f32-auto",
        ("DTY-12", "DTY-7"),
        "llama-f16-declared-f32-2",
        options={"dtype": "auto"},
    ),
    Case(
        "dty/undeclared-after-integers",
        ("DTY-2",),
        "llama-bf16-undeclared",
        ("integer-first",),
        options={"dtype": "auto"},
    ),
    *(
        Case(
            f"dty/extreme-values-as-{name}",
            ("DTY-7",),
            faults=("extreme-values",),
            options={"dtype": Torch(name)},
        )
        for name in ("float32", "float16", "bfloat16")
    ),
    Case(
        "dty/extreme-values-of-bf16",
        ("DTY-7",),
        "llama-bf16-2",
        ("extreme-values",),
        options={"dtype": Torch("float16")},
    ),
]
