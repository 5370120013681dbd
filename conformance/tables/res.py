"""RES: which file is loaded."""

from __future__ import annotations

from pathlib import Path

from conformance.case import (
    BASE,
    HALF,
    IN_MEMORY,
    NO_FILES,
    TWO_SHARDS,
    Case,
    ConfigObject,
    rejected,
)

PASSED = {"config": ConfigObject()}
FP16 = {"variant": "fp16"}
INNER = {"subfolder": "inner"}
ONLY_SAFE = {"use_safetensors": True}

CASES = [
    Case("res/single", ("RES-1", "MAP-1", "OUT-1")),
    Case("res/single-bf16", ("RES-1", "MAP-1"), "llama-bf16"),
    rejected("res/no-folder-above", "RES-5", "no/where", folder=Path("/nonexistent/no/where")),
    Case("res/single-beside-index", ("RES-2",), TWO_SHARDS, ("single-beside-index",)),
    Case("res/bin-beside-single", ("RES-3",), faults=("bin-beside-safetensors",)),
    Case("res/bin-beside-sharded", ("RES-3",), TWO_SHARDS, ("bin-beside-safetensors",)),
    Case(
        "res/use-safetensors",
        ("RES-3",),
        faults=("bin-beside-safetensors",),
        options={"use_safetensors": True},
    ),
    rejected("res/no-weights", "RES-4", "model.safetensors", "checkpoint", faults=("no-weights",)),
    rejected("res/no-folder", "RES-5", "nowhere", folder=Path("/nonexistent/nowhere")),
    Case("res/subfolder", ("RES-6",), faults=("subfolder",), options={"subfolder": "inner"}),
    Case(
        "res/subfolder-sharded",
        ("RES-6",),
        TWO_SHARDS,
        ("subfolder",),
        options={"subfolder": "inner"},
    ),
    Case("res/variant", ("RES-7",), faults=("variant-fp16",), options={"variant": "fp16"}),
    Case(
        "res/variant-sharded",
        ("RES-7",),
        TWO_SHARDS,
        ("variant-fp16",),
        options={"variant": "fp16"},
    ),
    rejected("res/variant-absent", "RES-4", "model.fp16.safetensors", options={"variant": "fp16"}),
    Case("res/pickled", ("RES-8", "OUT-1"), "llama-bf16", ("pickled",)),
    Case("res/pickled-sharded", ("RES-8",), "llama-f32-3", ("pickled",)),
    Case("res/pickled-tied", ("RES-8", "TIE-3"), "llama-tied-equal", ("pickled",)),
    Case(
        "res/pickled-beside-safetensors",
        ("RES-8",),
        faults=("bin-beside-safetensors",),
        options={"use_safetensors": False},
    ),
    rejected(
        "res/only-pickled", "RES-4", "model.safetensors", faults=("pickled",), options=ONLY_SAFE
    ),
    Case("res/file", ("RES-9",), model=BASE, options=PASSED, given="model.safetensors"),
    Case("res/file-that-generates", ("RES-9",), options=PASSED, given="model.safetensors"),
    Case("res/state-dict", ("RES-10",), options=IN_MEMORY, given=None),
    Case("res/state-dict-cast", ("RES-10", "DTY-7"), options=IN_MEMORY | HALF, given=None),
    Case("res/state-dict-base", ("RES-10", "MAP-2"), model=BASE, options=IN_MEMORY, given=None),
    Case(
        "res/state-dict-tied",
        ("RES-10", "TIE-1"),
        "llama-tied-embedding",
        options=IN_MEMORY,
        given=None,
    ),
    rejected("res/state-dict-and-source", "RES-11", "state", options=IN_MEMORY),
    rejected("res/nothing", "RES-11", "state", options=PASSED, given=None),
    Case("res/named-by-config", ("RES-12",), faults=("renamed-and-named",)),
    Case("res/named-by-config-half", ("RES-12",), "llama-f16", ("renamed-and-named",)),
    rejected("res/named-outside", "RES-13", "../outside.safetensors", faults=("named-outside",)),
    rejected("res/named-as-pickle", "RES-13", "pytorch_model.bin", faults=("named-as-pickle",)),
    Case("res/bin-beside-its-index", ("RES-8",), "llama-f32-3", ("pickled", "bin-beside-index")),
    Case("res/variant-pickled", ("RES-7",), faults=("pickled", "bin-variant-fp16"), options=FP16),
    rejected("res/subfolder-absent", "RES-5", "inner", options={"subfolder": "inner"}),
    rejected(
        "res/only-safetensors",
        "RES-4",
        "pytorch_model.bin",
        "checkpoint",
        options={"use_safetensors": False},
    ),
    rejected("res/dangling-link", "RES-4", "model.safetensors", faults=("dangling-link",)),
    Case("res/index-named-by-config", ("RES-12",), TWO_SHARDS, ("index-renamed-and-named",)),
    Case("res/pickled-in-subfolder", ("RES-6",), faults=("pickled", "subfolder"), options=INNER),
    *(
        rejected(f"res/weights-{name}", "RES-4", "model.safetensors", faults=(f"weights-{name}",))
        for name in NO_FILES
    ),
    *(
        rejected(
            f"res/index-{name}",
            "RES-4",
            "model.safetensors",
            "checkpoint",
            recipe=TWO_SHARDS,
            faults=(f"index-{name}",),
        )
        for name in NO_FILES
    ),
    *(
        rejected(
            f"res/pickle-{name}", "RES-4", "pytorch_model.bin", faults=("pickled", f"pickle-{name}")
        )
        for name in NO_FILES
    ),
]
