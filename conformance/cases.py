"""The cases: recipe (and faults) x load options x the clauses they check."""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CAUSAL = "transformers:LlamaForCausalLM"
BASE = "transformers:LlamaModel"
CLASSIFIER = "transformers:LlamaForSequenceClassification"
AUTO = "transformers:AutoModelForCausalLM"

VALID, ACCEPTABLE, INVALID = "valid", "acceptable", "invalid"


@dataclass(frozen=True)
class Torch:
    """A member of torch, such as a dtype, or what it makes of an argument: `device:cpu`."""

    name: str


@dataclass(frozen=True)
class ConfigObject:
    """A config object, read from the checkpoint and then changed, as a load option."""

    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredStateDict:
    """The tensors of the checkpoint's single file, in memory, as a load option."""


@dataclass(frozen=True)
class EmptyFolder:
    """A folder of its own for each load, as a load option."""


@dataclass(frozen=True)
class Case:
    """One load to be judged.

    Attributes:
        id: readable, and the name everywhere: `tie/head-only`.
        clauses: what it checks; the first that governs a kind of divergence answers for it.
        recipe: the fixture recipe; "" with `folder`.
        faults: damage done to it, in turn.
        model: `MODULE:ATTR`, the model class; "" for the class that the config names.
        options: keyword arguments of the load.
        input_class: `valid`, `acceptable` or `invalid`.
        names: what the message of the error must contain.
        folder: a checkpoint that is there already.
        greedy: whether tokens are generated.
        given: what the loader is given as the source: "" the folder, a name that file in it, None
            nothing.
    """

    id: str
    clauses: tuple[str, ...]
    recipe: str = "llama-f32"
    faults: tuple[str, ...] = ()
    model: str = CAUSAL
    options: Mapping[str, Any] = field(default_factory=dict)
    input_class: str = VALID
    names: tuple[str, ...] = ()
    folder: Path | None = None
    greedy: bool = False
    given: str | None = ""

    def source(self) -> Path:
        """The checkpoint's folder, written now if it has not been."""
        if self.folder is not None:
            return self.folder
        from fixtures.write import materialise

        return materialise(self.recipe, self.faults)

    def given_source(self, folder: Path) -> str | None:
        """The source as the loader gets it."""
        return None if self.given is None else str(folder / self.given)

    def model_class(self) -> type | None:
        """The class to load into; None for the one that the config names.

        Raises:
            ImportError, AttributeError: there is no such class.
        """
        module, _, attribute = self.model.partition(":")
        return getattr(importlib.import_module(module), attribute) if self.model else None


def select(cases: Iterable[Case], patterns: Iterable[str], clauses: Iterable[str]) -> list[Case]:
    """The cases whose id matches one of the globs and that cite one of the clauses, if given."""
    patterns, wanted = list(patterns), set(clauses)
    return [
        case
        for case in cases
        if (not patterns or any(fnmatch.fnmatchcase(case.id, glob) for glob in patterns))
        and (not wanted or wanted & set(case.clauses))
    ]


def _rejected(identifier: str, clause: str, *names: str, **more: Any) -> Case:
    return Case(identifier, (clause, "STA-2"), input_class=INVALID, names=names, **more)


TWO_SHARDS = "llama-f32-2"

PASSED = {"config": ConfigObject()}
IN_MEMORY = PASSED | {"state_dict": StoredStateDict()}
HALF = {"dtype": "float16"}
ONLY_SAFE = {"use_safetensors": True}

_RES = [
    Case("res/single", ("RES-1", "MAP-1", "OUT-1")),
    Case("res/single-bf16", ("RES-1", "MAP-1"), "llama-bf16"),
    _rejected("res/no-folder-above", "RES-5", "no/where", folder=Path("/nonexistent/no/where")),
    Case("res/single-beside-index", ("RES-2",), TWO_SHARDS, ("single-beside-index",)),
    Case("res/bin-beside-single", ("RES-3",), faults=("bin-beside-safetensors",)),
    Case("res/bin-beside-sharded", ("RES-3",), TWO_SHARDS, ("bin-beside-safetensors",)),
    Case(
        "res/use-safetensors",
        ("RES-3",),
        faults=("bin-beside-safetensors",),
        options={"use_safetensors": True},
    ),
    _rejected("res/no-weights", "RES-4", "model.safetensors", "checkpoint", faults=("no-weights",)),
    _rejected("res/no-folder", "RES-5", "nowhere", folder=Path("/nonexistent/nowhere")),
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
    _rejected("res/variant-absent", "RES-4", "model.fp16.safetensors", options={"variant": "fp16"}),
    Case("res/pickled", ("RES-8", "OUT-1"), "llama-bf16", ("pickled",)),
    Case("res/pickled-sharded", ("RES-8",), "llama-f32-3", ("pickled",)),
    Case("res/pickled-tied", ("RES-8", "TIE-3"), "llama-tied-equal", ("pickled",)),
    Case(
        "res/pickled-beside-safetensors",
        ("RES-8",),
        faults=("bin-beside-safetensors",),
        options={"use_safetensors": False},
    ),
    _rejected(
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
    _rejected("res/state-dict-and-source", "RES-11", "state", options=IN_MEMORY),
    _rejected("res/nothing", "RES-11", "state", options=PASSED, given=None),
    Case("res/named-by-config", ("RES-12",), faults=("renamed-and-named",)),
    Case("res/named-by-config-half", ("RES-12",), "llama-f16", ("renamed-and-named",)),
    _rejected("res/named-outside", "RES-13", "../outside.safetensors", faults=("named-outside",)),
    _rejected("res/named-as-pickle", "RES-13", "pytorch_model.bin", faults=("named-as-pickle",)),
]


SEVEN_SHARDS = "llama-f32-7"

_IDX = [
    *(Case(f"idx/{n}-shards", ("IDX-1", "MAP-1"), f"llama-f32-{n}") for n in (2, 3, 7)),
    Case("idx/odd-shard-names", ("IDX-1",), TWO_SHARDS, ("odd-shard-names",)),
    *(
        Case(f"idx/stray-duplicate-of-{n}", ("IDX-2",), f"llama-f32-{n}", ("stray-duplicate",))
        for n in (2, 3)
    ),
    *(Case(f"idx/shuffled-{n}", ("IDX-3",), f"llama-f32-{n}", ("shuffled-index",)) for n in (2, 7)),
    _rejected(
        "idx/not-json",
        "IDX-4",
        "model.safetensors.index.json",
        recipe=TWO_SHARDS,
        faults=("index-not-json",),
    ),
    _rejected(
        "idx/without-metadata",
        "IDX-5",
        "index.json",
        "metadata",
        recipe=TWO_SHARDS,
        faults=("index-without-metadata",),
    ),
    _rejected(
        "idx/without-weight-map",
        "IDX-5",
        "index.json",
        "weight_map",
        recipe=TWO_SHARDS,
        faults=("index-without-weight-map",),
    ),
    _rejected(
        "idx/absent-shard-of-2",
        "IDX-6",
        "model-00002-of-00002.safetensors",
        recipe=TWO_SHARDS,
        faults=("absent-shard",),
    ),
    _rejected(
        "idx/absent-shard-of-7",
        "IDX-6",
        "model-00007-of-00007.safetensors",
        recipe=SEVEN_SHARDS,
        faults=("absent-shard",),
    ),
    _rejected(
        "idx/not-json-of-7",
        "IDX-4",
        "model.safetensors.index.json",
        recipe=SEVEN_SHARDS,
        faults=("index-not-json",),
    ),
    _rejected(
        "idx/leads-outside-of-3",
        "IDX-9",
        "index.json",
        "../outside.safetensors",
        recipe="llama-f32-3",
        faults=("index-leads-outside",),
    ),
    Case("idx/phantom-key", ("IDX-7", "INF-2"), TWO_SHARDS, ("phantom-key",)),
    Case("idx/unlisted-key", ("IDX-8",), TWO_SHARDS, ("unlisted-key",)),
    _rejected(
        "idx/leads-outside",
        "IDX-9",
        "index.json",
        "../outside.safetensors",
        recipe=TWO_SHARDS,
        faults=("index-leads-outside",),
    ),
]


_FMT = [
    _rejected("fmt/truncated-single", "FMT-1", "model.safetensors", faults=("truncated-shard",)),
    _rejected(
        "fmt/truncated-shard",
        "FMT-1",
        "model-00003-of-00003.safetensors",
        recipe="llama-f32-3",
        faults=("truncated-shard",),
    ),
    _rejected("fmt/truncated-header", "FMT-2", "model.safetensors", faults=("truncated-header",)),
    _rejected(
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
    _rejected("fmt/pickle-runs-code", "FMT-5", "pytorch_model.bin", faults=("pickle-runs-code",)),
    _rejected(
        "fmt/pickle-runs-code-bf16",
        "FMT-5",
        "pytorch_model.bin",
        recipe="llama-bf16",
        faults=("pickle-runs-code",),
        options={"use_safetensors": False},
    ),
    _rejected(
        "fmt/pickle-truncated-bf16",
        "FMT-6",
        "pytorch_model.bin",
        recipe="llama-bf16-2",
        faults=("pickle-truncated",),
    ),
    _rejected("fmt/pickle-truncated", "FMT-6", "pytorch_model.bin", faults=("pickle-truncated",)),
]


_CFG = [
    Case("cfg/old-names", ("CFG-1", "DTY-1", "INI-1", "OUT-2"), "llama-old-config"),
    Case("cfg/new-names", ("CFG-1", "DTY-1", "INI-1", "OUT-2"), "llama-bf16"),
    Case("cfg/object", ("CFG-2",), options={"config": ConfigObject()}),
    Case(
        "cfg/object-other-dtype",
        ("CFG-2", "DTY-7"),
        options={"config": ConfigObject(), "dtype": "bfloat16"},
    ),
    Case(
        "cfg/object-changed",
        ("CFG-2", "CFG-3"),
        options={"config": ConfigObject({"rms_norm_eps": 0.1})},
    ),
    Case("cfg/override", ("CFG-3", "OUT-1"), options={"rms_norm_eps": 0.1}),
    Case(
        "cfg/override-rejects-shape",
        ("MIS-4", "STA-2"),
        input_class=INVALID,
        names=("embed_tokens.weight",),
        options={"vocab_size": 64},
    ),
    Case(
        "cfg/model-argument",
        ("CFG-3",),
        model="conformance.models:WithHook",
        options={"gain": 0.5},
    ),
    Case("cfg/generation", ("CFG-4", "OUT-3"), "llama-generation", greedy=True),
    Case("cfg/no-generation-file", ("CFG-4", "OUT-3"), greedy=True),
    Case("cfg/auto-class", ("CFG-5",), model=AUTO),
    Case("cfg/auto-base-class", ("CFG-5", "MAP-2"), model="transformers:AutoModel"),
    _rejected(
        "cfg/no-config",
        "CFG-6",
        "checkpoint",
        faults=("no-config",),
        model="conformance.models:WithSmallConfig",
    ),
    _rejected(
        "cfg/no-config-base",
        "CFG-6",
        "checkpoint",
        faults=("no-config",),
        model="conformance.models:WithSmallConfigBase",
    ),
    _rejected(
        "cfg/not-json-sharded",
        "CFG-7",
        "config.json",
        recipe=TWO_SHARDS,
        faults=("config-not-json",),
        model=AUTO,
    ),
    _rejected("cfg/not-json", "CFG-7", "config.json", faults=("config-not-json",)),
    Case("cfg/name-and-dtype", ("CFG-8",), "llama-bf16-2", options={"dtype": "float16"}),
    *(
        Case(f"cfg/attention-{name}", ("CFG-9", "OUT-1"), options={"attn_implementation": name})
        for name in ("eager", "sdpa")
    ),
]


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
KEPT = "conformance.models:WithFloat32Norms"

_DTY = [
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
    _rejected("dty/nonsense", "DTY-5", "bfloat17", options={"dtype": "bfloat17"}),
    _rejected("dty/nonsense-type", "DTY-5", "16", options={"dtype": 16}),
    _rejected("dty/integer", "DTY-6", "int8", options={"dtype": Torch("int8")}),
    _rejected("dty/integer-by-name", "DTY-6", "int64", options={"dtype": "int64"}),
    Case("dty/buffers-f16", ("DTY-8", "INI-1"), "llama-f16"),
    Case("dty/buffers-bf16", ("DTY-8", "INI-1"), "llama-bf16"),
    *(
        Case(f"dty/kept-{dtype}", ("DTY-9",), model=KEPT, options={"dtype": dtype})
        for dtype in ("float16", "bfloat16", "float32")
    ),
]


_INI = [
    Case("ini/constructor-buffer", ("INI-2", "OUT-1"), model="conformance.models:WithBuffer"),
    Case(
        "ini/constructor-buffer-bf16",
        ("INI-2",),
        "llama-bf16-2",
        model="conformance.models:WithBuffer",
    ),
    Case("ini/frozen-embedding", ("INI-3",), model="conformance.models:WithFrozenEmbedding"),
    Case(
        "ini/frozen-embedding-tied",
        ("INI-3", "TIE-1"),
        "llama-tied-embedding",
        model="conformance.models:WithFrozenEmbedding",
    ),
    Case("ini/hook", ("INI-5", "OUT-1"), model="conformance.models:WithHook"),
    Case(
        "ini/hook-cast",
        ("INI-5",),
        TWO_SHARDS,
        model="conformance.models:WithHook",
        options={"dtype": "bfloat16"},
    ),
    Case("ini/no-memory-left-out", ("INI-4",), "llama-f32-7", model=CLASSIFIER),
    Case("ini/no-memory-left-out-bf16", ("INI-4",), "llama-bf16", model=CLASSIFIER),
]


WITHOUT_PREFIX = {"key_mapping": {r"^module\.": ""}}

_MAP = [
    Case("map/base-from-head", ("MAP-2", "INF-3"), model=BASE),
    Case("map/base-from-head-sharded", ("MAP-2", "INF-3"), "llama-f32-3", model=BASE),
    Case("map/head-from-base", ("MAP-3", "INF-2", "MIS-6"), "llama-base"),
    Case("map/classifier-from-base", ("MAP-3", "INF-2"), "llama-base", model=CLASSIFIER),
    Case("map/other-head", ("MAP-4", "INF-3", "MIS-6"), model=CLASSIFIER),
    Case("map/left-over", ("MAP-4", "INF-3"), faults=("unexpected-key",)),
    Case("map/left-over-sharded", ("MAP-4", "INF-3"), "llama-f32-2", ("unexpected-key",)),
    Case("map/left-over-inv-freq", ("MAP-5",), faults=("leftover-inv-freq",)),
    Case(
        "map/left-over-inv-freq-base",
        ("MAP-5", "MAP-2"),
        faults=("leftover-inv-freq",),
        model=BASE,
    ),
    Case("map/key-mapping", ("MAP-6",), faults=("module-prefix",), options=WITHOUT_PREFIX),
    Case(
        "map/key-mapping-sharded",
        ("MAP-6",),
        "llama-f32-2",
        ("module-prefix",),
        options=WITHOUT_PREFIX,
    ),
    _rejected("map/nothing-matches", "MAP-7", "module.model", faults=("module-prefix",)),
    _rejected(
        "map/nothing-matches-sharded",
        "MAP-7",
        "module.model",
        recipe="llama-f32-2",
        faults=("module-prefix",),
    ),
    Case(
        "map/gamma-and-beta",
        ("MAP-8",),
        faults=("legacy-norm-names",),
        model="conformance.models:WithLayerNorm",
    ),
]


TOLERANT = {"ignore_mismatched_sizes": True}

_MIS = [
    *(
        Case(
            f"mis/classifier-{name}",
            ("MIS-1", "MIS-2", "MIS-6"),
            f"llama-{name}",
            model=CLASSIFIER,
        )
        for name in ("f32", "f16", "bf16")
    ),
    *(
        Case(f"mis/head-{name}", ("MIS-1", "MIS-2", "INF-2"), f"llama-{name}", ("missing-head",))
        for name in ("f32", "f16-2", "bf16-2")
    ),
    Case("mis/inner-weight", ("MIS-1", "MIS-2", "MIS-6", "INF-2"), faults=("missing-key",)),
    Case("mis/norm", ("MIS-1", "INF-2"), faults=("missing-norm",)),
    Case(
        "mis/own-initialisation",
        ("MIS-1", "MIS-2", "INF-2"),
        model="conformance.models:WithAdapter",
    ),
    Case("mis/generator", ("MIS-3",)),
    Case("mis/generator-tied", ("MIS-3",), "llama-tied-embedding-3"),
    _rejected("mis/wrong-shape", "MIS-4", "layers.0.mlp.up_proj.weight", faults=("wrong-shape",)),
    _rejected(
        "mis/wrong-shape-sharded",
        "MIS-4",
        "layers.0.mlp.up_proj.weight",
        recipe="llama-f32-2",
        faults=("wrong-shape",),
    ),
    Case(
        "mis/wrong-shape-tolerated",
        ("MIS-5", "INF-5", "MIS-1", "MIS-2"),
        faults=("wrong-shape",),
        options=TOLERANT,
    ),
    Case(
        "mis/wrong-shape-tolerated-bf16",
        ("MIS-5", "INF-5", "MIS-2"),
        "llama-bf16-2",
        ("wrong-shape",),
        options=TOLERANT,
    ),
]


_TIE = [
    Case("tie/embedding-only", ("TIE-1", "INF-2"), "llama-tied-embedding"),
    Case("tie/embedding-only-sharded", ("TIE-1",), "llama-tied-embedding-3"),
    Case(
        "tie/embedding-only-cast",
        ("TIE-1",),
        "llama-tied-embedding",
        options={"dtype": "float16"},
    ),
    Case("tie/head-only", ("TIE-2", "INF-2", "MIS-3"), "llama-tied-head"),
    Case(
        "tie/head-only-cast",
        ("TIE-2", "MIS-3"),
        "llama-tied-head",
        options={"dtype": "bfloat16"},
    ),
    Case("tie/equal", ("TIE-3",), "llama-tied-equal"),
    Case("tie/equal-cast", ("TIE-3",), "llama-tied-equal", options={"dtype": "float16"}),
    Case("tie/different", ("TIE-4",), "llama-tied-separate"),
    Case("tie/untied-equal", ("TIE-5",), "llama-untied-equal"),
    Case("tie/untied-different", ("TIE-5",), "llama-f32"),
    Case("tie/untied-embedding-only", ("TIE-6", "INF-2"), "llama-untied-embedding"),
    Case(
        "tie/untied-by-override",
        ("TIE-6", "CFG-3"),
        "llama-tied-embedding",
        options={"tie_word_embeddings": False},
    ),
    Case("tie/neither", ("TIE-7", "INF-2", "MIS-2"), "llama-tied-neither"),
    Case(
        "tie/neither-bf16", ("TIE-7", "MIS-2"), "llama-tied-neither", options={"dtype": "bfloat16"}
    ),
]


ONE_LAYER = {
    "model.embed_tokens": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.layers.2": "cpu",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "cpu",
}
ALL_LAYERS = {
    "model.embed_tokens": "cpu",
    "model.layers": "disk",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "cpu",
}
HEAD = {"model": "cpu", "lm_head": "disk"}
ALL = {"": "disk"}


def _placed(identifier: str, *clauses: str, device_map: Any, **more: Any) -> Case:
    options = {"device_map": device_map} | more.pop("options", {})
    return Case(identifier, clauses, options=options, **more)


def _on_disk(identifier: str, *clauses: str, device_map: dict[str, str], **more: Any) -> Case:
    options = {"offload_folder": EmptyFolder()} | more.pop("options", {})
    return _placed(identifier, *clauses, device_map=device_map, options=options, **more)


_PLC = [
    _placed("plc/name", "PLC-1", "PLC-4", device_map="cpu", recipe=TWO_SHARDS),
    _placed("plc/device", "PLC-1", device_map=Torch("device:cpu"), recipe="llama-bf16-2"),
    _placed("plc/dict", "PLC-1", "PLC-4", device_map={"": "cpu"}),
    _placed("plc/dict-of-modules", "PLC-1", device_map={"model": "cpu", "lm_head": "cpu"}),
    _placed("plc/base-model", "PLC-1", "MAP-2", device_map={"": "cpu"}, model=BASE),
    *(
        _placed(
            f"plc/{mode.replace('_', '-')}",
            "PLC-5",
            "PLC-4",
            device_map=mode,
            recipe=TWO_SHARDS,
        )
        for mode in ("auto", "balanced", "balanced_low_0", "sequential")
    ),
    _placed(
        "plc/auto-with-budget", "PLC-5", device_map="auto", options={"max_memory": {"cpu": 10**9}}
    ),
    _rejected("plc/nonsense", "PLC-2", "gpu5", options={"device_map": "gpu5"}),
    _rejected("plc/negative", "PLC-2", "device_map", options={"device_map": -1}),
    _rejected("plc/hole", "PLC-3", "lm_head.weight", options={"device_map": {"model": "cpu"}}),
    _rejected(
        "plc/hole-beside-disk",
        "PLC-3",
        "lm_head.weight",
        options={"device_map": {"model": "disk"}, "offload_folder": EmptyFolder()},
    ),
]

_OFF = [
    _on_disk("off/head", "OFF-1", "PLC-4", device_map=HEAD, recipe=TWO_SHARDS),
    _on_disk("off/one-layer", "OFF-1", "PLC-4", device_map=ONE_LAYER, recipe="llama-f32-3"),
    _on_disk("off/layers-bf16", "OFF-1", device_map=ALL_LAYERS, recipe="llama-bf16-2"),
    _on_disk("off/all", "OFF-2", device_map=ALL, recipe=TWO_SHARDS),
    _on_disk("off/all-cast", "OFF-2", device_map=ALL, options=HALF),
    _on_disk("off/pickled", "OFF-3", device_map=HEAD, faults=("pickled",)),
    _on_disk("off/pickled-cast", "OFF-3", device_map=ALL_LAYERS, faults=("pickled",), options=HALF),
    _on_disk("off/tied", "OFF-4", device_map=ALL, recipe="llama-tied-embedding"),
    _on_disk("off/tied-head-only", "OFF-4", "MIS-3", device_map=ALL, recipe="llama-tied-head"),
    _on_disk("off/tied-in-memory", "OFF-4", device_map=ALL_LAYERS, recipe="llama-tied-embedding"),
    _on_disk("off/tied-different", "OFF-4", "TIE-4", device_map=ALL, recipe="llama-tied-separate"),
    _on_disk(
        "off/missing-inside", "OFF-5", "INF-2", device_map=ALL_LAYERS, faults=("missing-key",)
    ),
    _on_disk(
        "off/missing-head", "OFF-5", "INF-2", device_map=HEAD, recipe="llama-untied-embedding"
    ),
]

_INF_AND_OUT = [
    Case("inf/exact", ("INF-1", "INF-2", "INF-3"), "llama-f32-2"),
    Case(
        "inf/all-fields",
        ("INF-1", "INF-2", "INF-3", "INF-5", "MIS-2"),
        faults=("wrong-shape", "unexpected-key", "missing-key"),
        options={"ignore_mismatched_sizes": True},
    ),
    Case(
        "inf/model-alone-missing",
        ("INF-4",),
        TWO_SHARDS,
        ("missing-head",),
        options={"output_loading_info": False},
    ),
    Case("inf/model-alone", ("INF-4",), options={"output_loading_info": False}),
    Case("sta/success", ("STA-1",), "llama-bf16-2"),
    Case("sta/success-missing", ("STA-1",), faults=("missing-head",)),
    *(
        Case(f"out/{name}", ("OUT-1", "OUT-2", "OUT-3", "OUT-4"), f"llama-{name}", greedy=True)
        for name in ("f32-3", "f16-2", "bf16-2", "mixed-2", "tied-embedding", "old-config")
    ),
    Case("out/eager", ("OUT-1", "OUT-2"), "llama-f32", options={"attn_implementation": "eager"}),
    Case("out/float64", ("OUT-1", "OUT-2"), "llama-f32", options={"dtype": "float64"}),
]


CASES: tuple[Case, ...] = tuple(
    case
    for stage in (_RES, _IDX, _FMT, _CFG, _DTY, _INI, _MAP, _MIS, _TIE, _PLC, _OFF, _INF_AND_OUT)
    for case in stage
)


def own_cases(*folders: Path) -> list[Case]:
    """Every case that applies to checkpoints of the user's, each named after its folder."""
    names = [folder.resolve().name for folder in folders]
    numbered = [
        f"{name}-{names[: i + 1].count(name)}" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]
    return [case for pair in zip(folders, numbered, strict=True) for case in _own_cases(*pair)]


def _own_cases(folder: Path, name: str) -> list[Case]:
    classes = {
        "as-saved": "",
        "base": "transformers:AutoModel",
        "other-head": "transformers:AutoModelForSequenceClassification",
    }
    clauses = ("MAP-1", "DTY-1", "INF-1", "INF-2", "INF-3", "OUT-1", "OUT-3", "CFG-8")
    return [
        *(
            Case(f"own/{name}/{form}", clauses, "", model=model, folder=folder, greedy=True)
            for form, model in classes.items()
        ),
        *(
            Case(
                f"own/{name}/{dtype}",
                ("DTY-3", "DTY-7", "OUT-1"),
                "",
                model="",
                folder=folder,
                options={"dtype": Torch(dtype)},
            )
            for dtype in ("bfloat16", "float16")
        ),
    ]
