"""Cases of stage STA: process state."""

from __future__ import annotations

from typing import Any

from conformance.cases.case import INVALID, Case, Torch, rejected

# `torch_dtype` is known to every release (DTY-4).
BFLOAT16 = {"torch_dtype": Torch("bfloat16")}
FLOAT32 = {"torch_dtype": Torch("float32")}
PLACED = {"device_map": {"": "cpu"}, "torch_dtype": Torch("float16")}

# What every load is held to; the cases that cite these compare all of torch and poison no memory.
PROCESS = ("STA-10", "STA-11", "STA-12", "STA-13", "STA-14", "STA-15", "STA-17")


def _threads(name: str, recipe: str = "llama-f32-2", **more: Any) -> Case:
    return Case(f"sta/threads{name}", ("STA-3",), recipe, threads=8, **more)


def _failing(name: str, model: str, **more: Any) -> Case:
    """The model class's own code raises."""
    return Case(
        f"sta/fails-in-{name}",
        ("STA-6", "STA-2", *PROCESS),
        model=f"conformance.world.user_models:{model}",
        input_class=INVALID,
        names=(model,),
        **more,
    )


def _refused(name: str, clause: str, fault: str, *names: str, **more: Any) -> Case:
    """A checkpoint that no loader can load, at one of the places where a load finds that out."""
    return Case(
        f"sta/refuses-{name}",
        (clause, "STA-2", *PROCESS),
        faults=(fault,),
        names=names,
        input_class=INVALID,
        **more,
    )


CASES = [
    Case("sta/success", ("STA-1", *PROCESS), "llama-bf16-2"),
    Case("sta/ends", ("STA-18",)),
    Case("sta/success-missing", ("STA-1", *PROCESS), faults=("missing-head",)),
    Case("sta/success-map", ("STA-1", *PROCESS), "llama-bf16-2", options=PLACED),
    _refused("no-weights", "RES-4", "no-weights", "model.safetensors"),
    _refused("wrong-shape", "MIS-4", "wrong-shape", "mlp.up_proj.weight"),
    _refused("wrong-shape-map", "MIS-4", "wrong-shape", "mlp.up_proj.weight", options=PLACED),
    _refused("truncated-file", "FMT-1", "truncated-shard", "model.safetensors"),
    Case(
        "sta/interrupted",
        ("STA-16", "STA-2", *PROCESS),
        model="conformance.world.user_models:Interrupted",
        options=BFLOAT16,
        input_class=INVALID,
    ),
    _threads(""),
    _threads("-cast", options=BFLOAT16),
    _threads("-tied", "llama-tied-embedding"),
    _threads("-missing-norm", "llama-f32", faults=("missing-norm",)),
    Case("sta/default-dtype", ("STA-4",), under=("default-dtype-bfloat16",), options=FLOAT32),
    Case(
        "sta/default-dtype-auto",
        ("STA-4",),
        "llama-bf16-2",
        under=("default-dtype-float64",),
        options={"torch_dtype": "auto"},
    ),
    Case("sta/no-grad", ("STA-4",), faults=("missing-head",), under=("no-grad",)),
    Case("sta/inference-mode", ("STA-4",), "llama-f32-2", under=("inference-mode",)),
    rejected("sta/default-device-meta", "STA-5", "meta", under=("default-device-meta",)),
    rejected("sta/device-meta", "STA-5", "meta", recipe="llama-f32-2", under=("device-meta",)),
    Case(
        "sta/device-meta-and-a-map",
        ("STA-5", "INI-4"),
        under=("device-meta",),
        options={"device_map": {"": "cpu"}},
    ),
    _failing("constructor", "FailsInConstructor", options=BFLOAT16),
    _failing("init-weights", "FailsInInitWeights", faults=("missing-head",)),
    _failing("eval", "FailsInEval", recipe="llama-f32-2"),
]
