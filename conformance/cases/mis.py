"""Cases of stage MIS: missing and mismatched weights."""

from __future__ import annotations

from conformance.cases.case import CLASSIFIER, Case, Torch, rejected

MAMBA = "transformers:MambaForCausalLM"
RESCALING = "conformance.world.user_models:WithRescaling"
# The old name and an explicit "auto": what every release knows.
AUTO = {"torch_dtype": "auto"}
TOLERANT = {"ignore_mismatched_sizes": True}

CASES = [
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
        model="conformance.world.user_models:WithAdapter",
    ),
    Case("mis/generator", ("MIS-3",)),
    Case("mis/generator-tied", ("MIS-3",), "llama-tied-embedding-3"),
    rejected("mis/gptq-without-config", "MIS-7", "qweight", faults=("quantised-gptq",)),
    rejected("mis/fp8-without-config", "MIS-7", "weight_scale_inv", faults=("quantised-fp8",)),
    Case("mis/scale-left-over", ("MIS-7", "MAP-4", "MIS-3"), faults=("scale-left-over",)),
    rejected("mis/wrong-shape", "MIS-4", "layers.0.mlp.up_proj.weight", faults=("wrong-shape",)),
    rejected(
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
    *(
        Case(
            f"mis/rescaled-{name}",
            ("MIS-6", "MIS-2", "INF-2"),
            recipe,
            model=RESCALING,
            options=AUTO,
        )
        for name, recipe in (("f32", "llama-f32"), ("bf16", "llama-bf16-2"))
    ),
    Case(
        "mis/rescaled-cast", ("MIS-6", "MIS-2"), model=RESCALING, options={"torch_dtype": "float16"}
    ),
    Case("mis/rescaled-mamba", ("MIS-6", "MIS-3"), "mamba-tied-embedding", model=MAMBA),
    Case(
        "mis/generator-mamba",
        ("MIS-3", "TIE-1"),
        "mamba-tied-embedding",
        model=MAMBA,
        options={"rescale_prenorm_residual": False},
    ),
    Case("mis/generator-own-draws", ("MIS-3",), model="conformance.world.user_models:WithOwnDraws"),
    Case(
        "mis/classifier-f64",
        ("MIS-1", "MIS-2"),
        model=CLASSIFIER,
        options={"torch_dtype": Torch("float64")},
    ),
]
