"""Cases of stage MAP: key names."""

from __future__ import annotations

from typing import Any

from conformance.cases.case import BASE, CLASSIFIER, Case, Torch, rejected

WITHOUT_PREFIX = {"key_mapping": {r"^module\.": ""}}
WITH_EXTRA_STATE = "conformance.world.user_models:WithExtraState"


def _mapped(name: str, *clauses: str, mapping: dict[str, str], **more: Any) -> Case:
    return Case(f"map/{name}", clauses, options={"key_mapping": mapping}, **more)


CASES = [
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
    rejected("map/nothing-matches", "MAP-7", "module.model", faults=("module-prefix",)),
    rejected(
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
        model="conformance.world.user_models:WithLayerNorm",
    ),
    Case("map/head-from-base-sharded", ("MAP-3", "INF-2", "MIS-6"), "llama-base-2"),
    Case(
        "map/gamma-and-beta-inside",
        ("MAP-8",),
        "llama-f32-2",
        ("legacy-norm-names",),
        "conformance.world.user_models:WithLayerNormInside",
    ),
    Case(
        "map/weight-norm",
        ("MAP-8", "MIS-3"),
        faults=("legacy-weight-norm-names",),
        model="conformance.world.user_models:WithWeightNorm",
    ),
    Case("map/extra-state", ("MAP-9",), "llama-f32-2", ("extra-state",), model=WITH_EXTRA_STATE),
    Case(
        "map/extra-state-longer", ("MAP-9",), faults=("longer-extra-state",), model=WITH_EXTRA_STATE
    ),
    Case(
        "map/extra-state-cast",
        ("MAP-9",),
        faults=("extra-state",),
        options={"torch_dtype": Torch("float16")},
        model=WITH_EXTRA_STATE,
    ),
    Case("map/extra-state-missing", ("MAP-9",), model=WITH_EXTRA_STATE),
    Case("map/extra-state-left-over", ("MAP-4", "INF-3"), faults=("extra-state",)),
    Case("map/two-names", ("MAP-10",), "llama-f32-2", ("norm-by-two-names",)),
    Case("map/two-names-base", ("MAP-10",), faults=("norm-by-two-names",), model=BASE),
    Case(
        "map/two-names-legacy",
        ("MAP-10",),
        "llama-f32-2",
        ("layer-norm-by-two-names",),
        "conformance.world.user_models:WithLayerNorm",
    ),
    _mapped(
        "two-mapped-to-one",
        "MAP-10",
        mapping={r"layers\.0\.input_layernorm": "layers.1.input_layernorm"},
    ),
    Case(
        "map/ignored-missing",
        ("MAP-11", "MIS-1"),
        faults=("missing-head",),
        model="conformance.world.user_models:SilentOnMissing",
    ),
    Case(
        "map/ignored-unexpected",
        ("MAP-11",),
        "llama-f32-2",
        ("unexpected-key",),
        "conformance.world.user_models:SilentOnUnexpected",
    ),
    _mapped(
        "key-mapping-group",
        "MAP-6",
        mapping={r"^module\.(.+)": r"\1"},
        faults=("module-prefix",),
    ),
    _mapped(
        "key-mapping-groups",
        "MAP-6",
        mapping={r"^(module)\.(.+)": r"\2"},
        faults=("module-prefix",),
    ),
    _mapped(
        "key-mapping-in-turn",
        "MAP-6",
        mapping={
            "input_layernorm": "other_layernorm",
            "post_attention_layernorm": "input_layernorm",
            "other_layernorm": "post_attention_layernorm",
        },
    ),
    _mapped("mapped-nowhere", "MAP-12", mapping={r"^model\.norm": "nowhere"}),
    _mapped(
        "left-over-mapped-nowhere",
        "MAP-12",
        "MAP-4",
        mapping={r"^model\.layers\.0\.extra": "nowhere"},
        recipe="llama-f32-2",
        faults=("unexpected-key",),
    ),
    Case("map/prefix-twice", ("MAP-13",), "llama-base", ("second-prefix", "second-prefix")),
    rejected(
        "map/prefix-twice-base",
        "MAP-7",
        "model.model.embed_tokens.weight",
        faults=("second-prefix",),
        model=BASE,
    ),
]
