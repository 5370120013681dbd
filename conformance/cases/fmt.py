"""Cases of stage FMT: weight file formats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance.cases.case import (
    ACCEPTABLE,
    AUTO,
    CAUSAL,
    HALF,
    TWO_SHARDS,
    Case,
    Torch,
    rejected,
)

ODD_SHAPES = "conformance.world.user_models:WithOddShapes"
BFLOAT16 = {"dtype": Torch("bfloat16")}
# The old name of `dtype`, which every release knows.
OLD_HALF = {"torch_dtype": "float16"}
KEY = "model.norm.weight"
LYING_HEADERS = (
    *("length-huge", "length-largest", "length-of-32-bits", "length-of-the-file", "length-zero"),
    *("not-utf8", "utf16", "no-object", "nested", "long-number", "key-twice"),
)
LYING_ENTRIES = {
    "entry-overlaps": KEY,
    "entry-past-the-end": "lm_head.weight",
    "hole-in-the-payload": "",
    "entry-shape-too-large": KEY,
    "entry-shape-negative": KEY,
    "entry-dtype-unknown": KEY,
    "entry-without-offsets": KEY,
    "entry-offsets-reversed": KEY,
    "entry-offsets-huge": KEY,
    "entry-offsets-no-numbers": KEY,
    "entry-shape-wraps": KEY,
    "entry-dtype-no-name": KEY,
    "entry-dtype-small-letters": KEY,
    "entry-no-object": KEY,
}
SINGLE, LAST, PICKLE = "model.safetensors", "model-00002-of-00002.safetensors", "pytorch_model.bin"
CUTS = {
    "in-the-length": "FMT-2",
    "after-the-length": "FMT-2",
    "before-the-header-ends": "FMT-2",
    "after-the-header": "FMT-1",
    "before-the-last-tensor": "FMT-1",
    "of-one-byte": "FMT-1",
    "too-late": "FMT-17",
}
FLIPS = {
    "length": ("FMT-7",),
    "brace": ("FMT-7",),
    "quote": ("FMT-7",),
    "dtype": ("FMT-8", KEY),
    "shape": ("FMT-8", KEY),
    "offset": ("FMT-7",),
}
UNPRIVILEGED = ("unprivileged",)

IMAGES = "transformers:AutoModelForImageClassification"
LLAVA = "transformers:LlavaForConditionalGeneration"
NOT_TRUSTED, TRUSTED = {"trust_remote_code": False}, {"trust_remote_code": True}
# Name, fault, model class, options, and what the error must name.
REFUSED_CODE: tuple[tuple[Any, ...], ...] = (
    ("code-config", "code-config-and-model", AUTO, {}, "config.json", "CodedConfig"),
    ("code-config-by-name", "code-config-and-model", "", {}, "config.json", "CodedConfig"),
    ("code-config-refused", "code-config-and-model", AUTO, NOT_TRUSTED, "CodedConfig"),
    ("code-config-elsewhere", "code-config-elsewhere", AUTO, {}, "org/elsewhere", "CodedConfig"),
    ("code-model", "code-model", IMAGES, {}, "config.json", "CodedForCausalLM"),
    ("code-model-refused", "code-model", IMAGES, NOT_TRUSTED, "CodedForCausalLM"),
    ("code-part", "code-part", LLAVA, {}, "modeling_coded", "CodedForCausalLM"),
    ("code-part-refused", "code-part", LLAVA, NOT_TRUSTED, "modeling_coded", "CodedForCausalLM"),
    ("code-kernel", "code-kernel", CAUSAL, {}, "org/elsewhere"),
)
UNUSED_CODE: tuple[tuple[Any, ...], ...] = (
    ("code-beside-known-type", "code-beside-known-type", AUTO, {}),
    ("code-beside-known-type-refused", "code-beside-known-type", AUTO, NOT_TRUSTED),
    ("code-beside-known-class", "code-beside-known-type", CAUSAL, {}),
    ("code-generate", "code-generate", CAUSAL, {}),
    ("code-generate-refused", "code-generate", AUTO, NOT_TRUSTED),
)
TRUSTED_CODE = (
    ("config-and-model", "code-config-and-model", AUTO),
    ("by-name", "code-config-and-model", ""),
    ("beside-known-type", "code-beside-known-type", AUTO),
    ("generate", "code-generate", CAUSAL),
)


def with_code(fault: str, model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What cases of code share: transformers copies code to a folder of its own."""
    under = ("own-module-cache",)
    return {"faults": (fault,), "model": model, "options": options, "under": under}


CASES = [
    rejected("fmt/truncated-single", "FMT-1", "model.safetensors", faults=("truncated-shard",)),
    rejected(
        "fmt/truncated-shard",
        "FMT-1",
        "model-00003-of-00003.safetensors",
        recipe="llama-f32-3",
        faults=("truncated-shard",),
    ),
    rejected("fmt/truncated-header", "FMT-2", "model.safetensors", faults=("truncated-header",)),
    rejected(
        "fmt/truncated-header-shard",
        "FMT-2",
        "model-00002-of-00002.safetensors",
        recipe="llama-f32-2",
        faults=("truncated-header",),
    ),
    Case("fmt/no-format-single", ("FMT-3",), faults=("no-format-metadata",)),
    Case("fmt/no-format-sharded", ("FMT-3",), "llama-f32-2", ("no-format-metadata",)),
    Case("fmt/legacy-pickle", ("FMT-4", "OUT-1"), faults=("pickled-legacy",)),
    Case("fmt/legacy-pickle-sharded", ("FMT-4",), "llama-bf16-2", ("pickled-legacy",)),
    Case("fmt/zip-pickle-cast", ("FMT-4", "DTY-7"), "llama-bf16-2", ("pickled",), options=HALF),
    Case("fmt/pickle-undeclared", ("FMT-4", "DTY-2"), "llama-mixed-undeclared", ("pickled",)),
    rejected("fmt/pickle-runs-code", "FMT-5", "pytorch_model.bin", faults=("pickle-runs-code",)),
    rejected(
        "fmt/pickle-runs-code-bf16",
        "FMT-5",
        "pytorch_model.bin",
        recipe="llama-bf16",
        faults=("pickle-runs-code",),
        options={"use_safetensors": False},
    ),
    *(
        Case(
            f"fmt/pickle-trusted{name}",
            ("FMT-5", "FMT-15"),
            faults=("pickled-beside-a-fraction",),
            options={"weights_only": False} | cast,
        )
        for name, cast in (("", {}), ("-cast", OLD_HALF))
    ),
    rejected(
        "fmt/pickle-truncated-bf16",
        "FMT-6",
        "pytorch_model.bin",
        recipe="llama-bf16-2",
        faults=("pickle-truncated",),
    ),
    rejected("fmt/pickle-truncated", "FMT-6", "pytorch_model.bin", faults=("pickle-truncated",)),
    rejected("fmt/empty-single", "FMT-2", "model.safetensors", faults=("empty-file",)),
    rejected(
        "fmt/empty-shard",
        "FMT-2",
        "model-00002-of-00002.safetensors",
        recipe=TWO_SHARDS,
        faults=("empty-file",),
    ),
    *(
        rejected(f"fmt/header-{name}", "FMT-7", "model.safetensors", faults=(f"header-{name}",))
        for name in LYING_HEADERS
    ),
    *(
        rejected(f"fmt/{name}", "FMT-8", "model.safetensors", key, faults=(name,))
        for name, key in LYING_ENTRIES.items()
    ),
    *(
        Case(f"fmt/norms-{name}", ("FMT-9", "DTY-7"), faults=(f"norms-{name}",))
        for name in ("signed", "unsigned", "narrow")
    ),
    Case(
        "fmt/norms-signed-bf16",
        ("FMT-9", "DTY-7"),
        TWO_SHARDS,
        ("norms-signed",),
        options=BFLOAT16,
    ),
    rejected("fmt/norms-complex", "FMT-10", "model.safetensors", KEY, faults=("norms-complex",)),
    Case("fmt/extra-of-every-dtype", ("FMT-9", "INF-3"), faults=("extra-of-every-dtype",)),
    Case("fmt/odd-shapes", ("FMT-11", "MAP-1"), faults=("odd-shapes",), model=ODD_SHAPES),
    Case(
        "fmt/odd-shapes-bf16",
        ("FMT-11", "DTY-7"),
        TWO_SHARDS,
        ("odd-shapes",),
        model=ODD_SHAPES,
        options=BFLOAT16,
    ),
    Case("fmt/odd-shapes-pickled", ("FMT-11",), faults=("odd-shapes", "pickled"), model=ODD_SHAPES),
    Case("fmt/linked", ("FMT-12", "OUT-1"), "llama-generation", ("linked",), greedy=True),
    Case("fmt/linked-sharded", ("FMT-12",), TWO_SHARDS, ("linked",)),
    Case("fmt/one-storage", ("FMT-13", "TIE-5"), "llama-untied-equal", ("pickled-one-storage",)),
    Case("fmt/one-storage-tied", ("FMT-13", "TIE-3"), "llama-tied-equal", ("pickled-one-storage",)),
    Case("fmt/views", ("FMT-13",), faults=("pickled-views",)),
    Case("fmt/transposed", ("FMT-14",), faults=("pickled-transposed",)),
    Case("fmt/transposed-cast", ("FMT-14",), faults=("pickled-transposed",), options=HALF),
    Case("fmt/parameters", ("FMT-15",), faults=("pickled-parameters",)),
    Case("fmt/beside-numbers", ("FMT-15",), faults=("pickled-beside-numbers",)),
    Case("fmt/beside-sparse", ("FMT-15", "INF-3"), faults=("pickled-beside-sparse",)),
    rejected("fmt/nested", "MAP-7", "state_dict", faults=("pickled-nested",)),
    rejected("fmt/no-tensors", "FMT-16", "model.safetensors", faults=("no-tensors",)),
    rejected("fmt/no-tensors-pickled", "FMT-16", "pytorch_model.bin", faults=("pickled-empty",)),
    *(
        rejected(f"fmt/cut-{name}{which}", clause, file, recipe=recipe, faults=(f"cut-{name}",))
        for name, clause in CUTS.items()
        for which, recipe, file in (("", "llama-f32", SINGLE), ("-of-a-shard", TWO_SHARDS, LAST))
    ),
    *(
        rejected(
            f"fmt/flipped-bit-in-the-{name}",
            clause,
            SINGLE,
            *key,
            faults=(f"flipped-bit-in-the-{name}",),
        )
        for name, (clause, *key) in FLIPS.items()
    ),
    Case("fmt/flipped-bit-in-the-key", ("INF-2", "INF-3"), faults=("flipped-bit-in-the-key",)),
    Case("fmt/flipped-bit-in-a-weight", ("FMT-21",), faults=("flipped-bit-in-a-weight",)),
    Case("fmt/nan-and-infinity", ("FMT-21",), faults=("extreme-values",)),
    Case("fmt/payload-is-a-hole", ("FMT-21",), TWO_SHARDS, ("payload-is-a-hole",)),
    rejected(
        "fmt/weights-are-unreadable",
        "FMT-18",
        SINGLE,
        faults=("weights-is-unreadable",),
        under=UNPRIVILEGED,
    ),
    rejected(
        "fmt/shard-is-unreadable",
        "FMT-18",
        LAST,
        recipe=TWO_SHARDS,
        faults=("weights-is-unreadable",),
        under=UNPRIVILEGED,
    ),
    rejected(
        "fmt/pickle-is-unreadable",
        "FMT-18",
        PICKLE,
        faults=("pickled", "pickle-is-unreadable"),
        under=UNPRIVILEGED,
    ),
    Case(
        "fmt/weights-exchanged-meanwhile",
        ("FMT-19",),
        faults=("newer-weights-beside",),
        model="conformance.world.user_models:Overtaken",
        input_class=ACCEPTABLE,
        copied=True,
    ),
    *(
        rejected(f"fmt/{name}", clause, PICKLE, faults=(name,))
        for name, clause in (
            ("pickled-program-legacy", "FMT-5"),
            ("pickled-program-bare", "FMT-5"),
            ("pickled-nothing", "FMT-6"),
            ("pickled-directory-flipped", "FMT-6"),
            ("pickled-of-two-disks", "FMT-6"),
            ("pickled-list", "FMT-20"),
            ("pickled-packed", "FMT-20"),
        )
    ),
    *(
        rejected(f"fmt/{name}", "FMT-22", *names, **with_code(fault, model, options))
        for name, fault, model, options, *names in REFUSED_CODE
    ),
    *(
        Case(f"fmt/{name}", ("FMT-22",), greedy=True, **with_code(fault, model, options))
        for name, fault, model, options in UNUSED_CODE
    ),
    *(
        Case(
            f"fmt/code-trusted-{name}",
            ("FMT-23", "OUT-3"),
            greedy=True,
            **with_code(f"{fault}-unmarked", model, TRUSTED),
        )
        for name, fault, model in TRUSTED_CODE
    ),
    Case("fmt/odd-keys", ("INF-3",), TWO_SHARDS, ("odd-keys",)),
]
