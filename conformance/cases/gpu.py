"""PLC and OFF with a GPU in the map: cases for machines that have one (`--device cuda`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from conformance.cases.case import TWO_SHARDS, Case, Torch, on_disk, placed

TIED = "llama-tied-embedding"
HALVES = ("float16", "bfloat16")

# A layer is never split, so a map by layers names each.
REST = dict.fromkeys(("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"), 0)
LAYERS = {f"model.layers.{layer}": 0 for layer in range(3)}

WHOLE: dict[str, Any] = {
    "name": "cuda",
    "name-numbered": "cuda:0",
    "number": 0,
    "device": Torch("device:cuda:0"),
    "dict": {"": 0},
    "dict-modules": {"model": 0, "lm_head": "cuda:0"},
    "dict-layers": REST | LAYERS,
    "auto": "auto",
    "balanced": "balanced",
    "balanced-low-0": "balanced_low_0",
    "sequential": "sequential",
}
SPLIT: dict[str, Any] = {
    "head-on-cpu": {"model": 0, "lm_head": "cpu"},
    "layer-on-cpu": REST | LAYERS | {"model.layers.1": "cpu"},
    "head-on-disk": {"model": 0, "lm_head": "disk"},
    "layer-on-disk": REST | LAYERS | {"model.layers.1": "disk"},
    "everywhere": REST | LAYERS | {"model.layers.1": "cpu", "model.layers.2": "disk"},
}
TWO: dict[str, Any] = {
    "halves": REST | LAYERS | {"model.layers.2": 1, "model.norm": 1, "lm_head": 1},
    "layer-between": REST | LAYERS | {"model.layers.1": 1},
    "and-disk": REST | LAYERS | {"model.layers.1": 1, "model.layers.2": "disk"},
}

# Its first layer has the buffer.
BEFORE_BUFFER = REST | LAYERS | {"model.layers.0": "disk"}

# Bytes in float32: the whole model has 144,512, a layer 37,120, the embedding 16,384.
BUDGETS: Mapping[str, Mapping[Any, int]] = {
    "ample": {0: 10**9, "cpu": 10**9},
    "spills-to-cpu": {0: 100_000, "cpu": 10**9},
    "spills-to-disk": {0: 80_000, "cpu": 50_000},
    "nothing-on-the-gpu": {0: 0, "cpu": 10**9},
}
# PLC-4 says where `hf_device_map` is, OFF-1 that the outputs are those of the GPU alone.
ALONE, SPREAD = ("PLC-1", "PLC-4", "MAP-1", "OUT-1"), ("PLC-1", "PLC-4", "OFF-1")

BUFFER = {"model": "conformance.world.user_models:WithBufferInside", "faults": ("unexpected-key",)}


def whole(name: str, dtype: str = "float32") -> Case:
    """The model on one GPU, cast on its way unless the dtype is the stored one."""
    clauses = (*ALONE, "DTY-7")
    options = {"torch_dtype": dtype}
    identifier = _named(f"plc/gpu-{name}", dtype)
    case = placed(identifier, *clauses, device_map=WHOLE[name], recipe=TWO_SHARDS, options=options)
    return replace(case, greedy=True)


def spread(name: str, dtype: str = "float32") -> Case:
    """The model in several places."""
    where, options = (SPLIT | TWO)[name], {"torch_dtype": dtype}
    identifier = _named(f"plc/gpu-{name}", dtype)
    return on_disk(identifier, *SPREAD, device_map=where, recipe=TWO_SHARDS, options=options)


def by_budget(name: str, mode: str) -> Case:
    """A map that accelerate makes of budgets with a GPU in them."""
    clauses, options = ("PLC-5", "PLC-6", "PLC-8", "OFF-1"), {"max_memory": BUDGETS[name]}
    identifier = f"plc/gpu-budget-{name}-{mode.replace('_', '-')}"
    return on_disk(identifier, *clauses, device_map=mode, options=options)


def tied(name: str, where: dict[str, Any]) -> Case:
    """Embedding and head one parameter, their modules on different devices."""
    clauses = ("PLC-1", "OFF-1", "OFF-4")
    return on_disk(f"plc/gpu-tied-{name}", *clauses, device_map=where, recipe=TIED)


def extreme(name: str, recipe: str, dtype: str) -> Case:
    """Infinities, subnormals and what float16 has not, cast. NaN is left out, see `catalogue`."""
    options = {"dtype": Torch(dtype)}
    faults = ("extreme-numbers",)
    identifier = f"dty/gpu-extreme-numbers-{name}"
    return placed(identifier, "DTY-7", device_map=0, recipe=recipe, faults=faults, options=options)


def _named(identifier: str, dtype: str) -> str:
    return identifier if dtype == "float32" else f"{identifier}-{dtype}"


_CASES = [
    *(whole(name) for name in WHOLE),
    *(spread(name) for name in SPLIT | TWO),
    *(whole("name", dtype) for dtype in HALVES),
    *(spread(name, dtype) for name in SPLIT | TWO for dtype in HALVES),
    *(by_budget(name, mode) for name in BUDGETS for mode in ("auto", "sequential")),
    *(by_budget("spills-to-disk", mode) for mode in ("balanced", "balanced_low_0")),
    *(extreme(f"as-{dtype}", "llama-f32", dtype) for dtype in ("float32", *HALVES)),
    extreme("of-bf16", "llama-bf16-2", "float16"),
    placed("plc/gpu-tied", "TIE-1", "PLC-1", device_map=0, recipe=TIED),
    tied("apart", {"model": 0, "lm_head": "cpu"}),
    tied("apart-the-other-way", {"model": "cpu", "lm_head": 0}),
    tied("on-two", {"model": 0, "lm_head": 1}),
    placed("plc/gpu-buffer", "PLC-1", "MAP-1", device_map=0, **BUFFER),
    on_disk("off/gpu-buffer", "OFF-8", device_map=BEFORE_BUFFER, **BUFFER),
    on_disk(
        "off/gpu-buffer-too",
        "OFF-8",
        device_map=BEFORE_BUFFER,
        options={"offload_buffers": True},
        **BUFFER,
    ),
    on_disk("off/gpu-pickled", "OFF-3", device_map=SPLIT["everywhere"], faults=("pickled",)),
]
CASES = [replace(case, device="cuda") for case in _CASES]
