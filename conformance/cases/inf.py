"""Cases of stage INF: loading info."""

from __future__ import annotations

from conformance.cases.case import BASE, TWO_SHARDS, Case

CASES = [
    Case("inf/exact", ("INF-1", "INF-2", "INF-3", "INF-6"), "llama-f32-2"),
    Case(
        "inf/all-fields",
        ("INF-1", "INF-2", "INF-3", "INF-5", "INF-6", "MIS-2"),
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
    Case(
        "inf/base-mismatched",
        ("INF-5", "INF-1"),
        faults=("wrong-shape",),
        model=BASE,
        options={"ignore_mismatched_sizes": True},
    ),
    Case("inf/base-left-over", ("INF-3", "INF-1"), TWO_SHARDS, ("unexpected-key",), BASE),
    Case(
        "inf/base-missing", ("INF-2", "INF-1"), faults=("missing-key", "missing-norm"), model=BASE
    ),
    Case("inf/warns-of-missing", ("INF-7", "INF-2"), faults=("missing-head",)),
    Case("inf/warns-of-missing-plain", ("INF-7", "MIS-1"), faults=("missing-norm",), plain=True),
    Case(
        "inf/warns-of-mismatched",
        ("INF-7", "INF-5", "MIS-2"),
        faults=("wrong-shape",),
        options={"ignore_mismatched_sizes": True},
        plain=True,
    ),
    Case("inf/silent", ("INF-8", "INF-6")),
    Case("inf/silent-plain", ("INF-8",), "llama-tied-embedding", plain=True),
]
