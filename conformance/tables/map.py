"""MAP: names."""

from __future__ import annotations

from conformance.case import BASE, CLASSIFIER, Case, rejected

WITHOUT_PREFIX = {"key_mapping": {r"^module\.": ""}}

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
        model="conformance.models:WithLayerNorm",
    ),
]
