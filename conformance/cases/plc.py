"""Cases of stage PLC: device map."""

from __future__ import annotations

from typing import Any

from conformance.cases.case import BASE, TWO_SHARDS, Case, EmptyFolder, Torch, placed, rejected

AUTO = {"torch_dtype": "auto"}
LAYERS = {f"model.layers.{layer}": "cpu" for layer in range(3)}
# Deeper by a level each time; every map covers every parameter.
REST = {
    "model.embed_tokens": "cpu",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "cpu",
}
INSIDE_A_LAYER = {
    f"model.layers.0.{name}": "cpu"
    for name in ("self_attn", "input_layernorm", "post_attention_layernorm")
} | {f"model.layers.0.mlp.{name}_proj": "cpu" for name in ("gate", "up", "down")}
NORM_ON_DISK = {"model.norm.weight": "disk"}
TIED = "llama-tied-embedding"
DEPTHS: dict[str, dict[str, Any]] = {
    "modules": {"model": "cpu", "lm_head": "cpu"},
    "layers": REST | LAYERS,
    "inside-a-layer": REST | LAYERS | INSIDE_A_LAYER,
    "overlapping": {"": "cpu", "model": "cpu", "model.layers.1": "cpu"},
    "parameters": REST | LAYERS | {"lm_head.weight": "cpu", "model.norm.weight": "cpu"},
    "devices": {"model": Torch("device:cpu"), "lm_head": Torch("device:cpu")},
}
MODES = ("auto", "balanced", "balanced_low_0", "sequential")
# Bytes: the whole model has 144,512, a layer 37,120, the embedding 16,384.
BUDGETS: dict[str, Any] = {
    "ample": {"cpu": 10**9},
    "ample-in-words": {"cpu": "1GB"},
    "tight": {"cpu": 100_000},
    "tight-in-words": {"cpu": "100KB"},
    "half-a-layer": {"cpu": 80_000},
    "nothing": {"cpu": 0},
}


def budgeted(name: str, mode: str = "auto", recipe: str = "llama-f32") -> Case:
    """A map by budget; what does not fit goes to disk."""
    clauses = ("PLC-5", "PLC-6", "PLC-8", "OFF-1", "CFG-40")
    options = {"max_memory": BUDGETS[name], "offload_folder": EmptyFolder()}
    words = [name, *(() if mode == "auto" else (mode.replace("_", "-"),))]
    words += ["tied"] if "tied" in recipe else []
    identifier = "-".join(["plc/budget", *words])
    return placed(identifier, *clauses, device_map=mode, options=options, recipe=recipe)


def refused(name: str, clause: str, named: str, device_map: Any, recipe: str = "llama-f32") -> Case:
    """A device map that is rejected with an error that contains `named`."""
    options = {"device_map": device_map, "offload_folder": EmptyFolder()}
    return rejected(f"plc/{name}", clause, named, options=options, recipe=recipe)


CASES = [
    placed("plc/name", "PLC-1", "PLC-4", device_map="cpu", recipe=TWO_SHARDS),
    placed(
        "plc/device", "PLC-1", device_map=Torch("device:cpu"), recipe="llama-bf16-2", options=AUTO
    ),
    placed("plc/default-device", "PLC-1", "PLC-4", device_map=None, under=("device-cpu",)),
    placed("plc/dict", "PLC-1", "PLC-4", device_map={"": "cpu"}),
    *(
        placed(f"plc/dict-{depth}", "PLC-1", "PLC-4", device_map=device_map)
        for depth, device_map in DEPTHS.items()
    ),
    placed("plc/base-model", "PLC-1", "MAP-2", device_map={"": "cpu"}, model=BASE),
    placed("plc/dict-unknown-module", "PLC-7", device_map={"": "cpu", "modle.norm": "cpu"}),
    placed(
        "plc/dict-unknown-module-on-disk",
        "PLC-7",
        device_map={"": "cpu", "head": "disk"},
        options={"offload_folder": EmptyFolder()},
    ),
    *(
        placed(
            f"plc/{mode.replace('_', '-')}", "PLC-5", "PLC-4", device_map=mode, recipe=TWO_SHARDS
        )
        for mode in MODES
    ),
    *(budgeted(name) for name in BUDGETS),
    *(budgeted("tight", mode) for mode in MODES[1:]),
    budgeted("tight", recipe=TIED),
    refused("nonsense", "PLC-2", "gpu5", "gpu5"),
    refused("nonsense-inside", "PLC-2", "gpu5", {"model": "cpu", "lm_head": "gpu5"}),
    refused("negative", "PLC-2", "device_map", -1),
    refused("negative-inside", "PLC-2", "device_map", {"model": "cpu", "lm_head": -1}),
    refused("hole", "PLC-3", "lm_head.weight", {"model": "cpu"}),
    refused("hole-beside-disk", "PLC-3", "lm_head.weight", {"model": "disk"}),
    refused("parameter-on-disk", "PLC-9", "model.norm.weight", REST | LAYERS | NORM_ON_DISK),
    refused(
        "parameter-in-memory", "PLC-9", "lm_head.weight", {"": "disk", "lm_head.weight": "cpu"}
    ),
    refused("disk-inside-memory", "PLC-9", "model.norm", {"": "cpu", "model.norm": "disk"}),
    refused(
        "tied-head-on-disk", "PLC-9", "lm_head.weight", {"model": "cpu", "lm_head": "disk"}, TIED
    ),
    refused(
        "tied-rest-on-disk", "PLC-9", "lm_head.weight", {"model": "disk", "lm_head": "cpu"}, TIED
    ),
    *(
        rejected(
            f"plc/over-budget-{name}",
            "PLC-10",
            "cpu",
            "max_memory",
            options={"device_map": device_map, "max_memory": {"cpu": 100_000}},
        )
        for name, device_map in (("name", "cpu"), ("dict", {"": "cpu"}))
    ),
    placed(
        "plc/within-budget",
        "PLC-10",
        "PLC-1",
        device_map={"": "cpu"},
        options={"max_memory": {"cpu": "145KB"}},
    ),
    *(
        rejected(
            f"plc/budget-{words}",
            "PLC-11",
            named,
            options={
                "device_map": "auto",
                "max_memory": budget,
                "offload_folder": EmptyFolder(),
            },
        )
        for words, named, budget in (
            ("in-no-unit", "abc", {"cpu": "abc"}),
            ("of-none", "cpu", {"cpu": None}),
            ("negative", "-1", {"cpu": -1}),
            ("of-no-device", "gpu5", {"gpu5": 10**9}),
        )
    ),
    # No machine has eight of these.
    *(
        refused(f"absent-{words}", "PLC-12", "xpu:7", device_map)
        for words, device_map in (
            ("name", "xpu:7"),
            ("everywhere", {"": "xpu:7"}),
            ("inside", {"model": "cpu", "lm_head": "xpu:7"}),
        )
    ),
    refused("empty", "PLC-3", "model.embed_tokens.weight", {}),
]
