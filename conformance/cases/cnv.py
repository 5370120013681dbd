"""Cases of stage CNV: stored tensors that a release converts."""

from __future__ import annotations

from typing import Any

from conformance.cases.case import IN_MEMORY, Case, rejected

EXPERTS = ("CNV-1", "INF-2", "INF-3", "OUT-1")
TRUE = (*EXPERTS, "CNV-8")
MIXTRAL = "transformers:MixtralForCausalLM"
AUTO = {"torch_dtype": "auto"}

# Without it a release keeps every expert by itself, as a checkpoint does.
TABLE = "transformers.conversion_mapping"


def converted(name: str, recipe: str = "mixtral", **more: Any) -> Case:
    """A mixture of experts in its published layout."""
    return Case(f"cnv/{name}", TRUE, recipe, model=MIXTRAL, **more)


def merged(name: str, *clauses: str, **more: Any) -> Case:
    """A mixture of experts that is stored otherwise, in a release that merges them."""
    options = AUTO | more.pop("options", {})
    return Case(
        *(f"cnv/{name}", (*clauses, *EXPERTS), "mixtral"),
        model=MIXTRAL,
        options=options,
        needs=TABLE,
        **more,
    )


def refused(name: str, clause: str, fault: str, *names: str) -> Case:
    """Experts that cannot be merged into the parameter that the error names."""
    return rejected(
        *(f"cnv/{name}", clause, "mlp.experts.", *names),
        recipe="mixtral",
        faults=(fault,),
        model=MIXTRAL,
        needs=TABLE,
    )


CASES = [
    converted("mixtral", options=AUTO, greedy=True),
    converted("mixtral-sharded", "mixtral-3", options=AUTO),
    converted("mixtral-cast", options={"torch_dtype": "bfloat16"}),
    converted("mixtral-map", "mixtral-3", options={"device_map": "cpu", "torch_dtype": "auto"}),
    converted("mixtral-state-dict", given=None, options=IN_MEMORY),
    converted("mixtral-saved", options=AUTO, saved=True),
    merged("mixed-dtypes", "CNV-8", faults=("experts-of-mixed-dtypes",)),
    refused("hole-in-the-numbers", "CNV-2", "expert-number-skipped", "11"),
    refused("one-expert-short", "CNV-3", "expert-missing"),
    refused("one-expert-long", "CNV-3", "expert-too-many"),
    refused("expert-of-another-shape", "CNV-3", "expert-short", "experts.5.w2"),
    refused("half-a-pair", "CNV-4", "expert-half-pair"),
    refused("halves-of-all-pairs", "CNV-4", "experts-without-up-projections"),
    merged("no-down-projection", "MIS-1", faults=("experts-without-down-projections",)),
    merged("layout-of-the-model", "CNV-5", faults=("experts-merged",)),
    merged("both-layouts", "CNV-5", faults=("experts-merged-beside",)),
    merged(
        "key-mapping-first",
        "CNV-6",
        faults=("experts-by-other-names",),
        options={"key_mapping": {r"\.gate_proj\.": ".w1."}},
    ),
    Case(
        "cnv/registered-by-the-user",
        ("CNV-7", "INF-2", "INF-3", "OUT-1"),
        faults=("unknown-type",),
        model="conformance.world.user_shapes:WithFusedMlp",
        needs=TABLE,
    ),
    Case(
        "cnv/registered-by-the-user-cast",
        ("CNV-7", "INF-2", "INF-3", "OUT-1"),
        "llama-f32-3",
        ("unknown-type",),
        model="conformance.world.user_shapes:WithFusedMlp",
        options={"torch_dtype": "bfloat16"},
        needs=TABLE,
    ),
]
