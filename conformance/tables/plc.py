"""PLC: where weights go."""

from __future__ import annotations

from conformance.case import BASE, TWO_SHARDS, EmptyFolder, Torch, placed, rejected

CASES = [
    placed("plc/name", "PLC-1", "PLC-4", device_map="cpu", recipe=TWO_SHARDS),
    placed("plc/device", "PLC-1", device_map=Torch("device:cpu"), recipe="llama-bf16-2"),
    placed("plc/dict", "PLC-1", "PLC-4", device_map={"": "cpu"}),
    placed("plc/dict-of-modules", "PLC-1", device_map={"model": "cpu", "lm_head": "cpu"}),
    placed("plc/base-model", "PLC-1", "MAP-2", device_map={"": "cpu"}, model=BASE),
    *(
        placed(
            f"plc/{mode.replace('_', '-')}",
            "PLC-5",
            "PLC-4",
            device_map=mode,
            recipe=TWO_SHARDS,
        )
        for mode in ("auto", "balanced", "balanced_low_0", "sequential")
    ),
    placed(
        "plc/auto-with-budget", "PLC-5", device_map="auto", options={"max_memory": {"cpu": 10**9}}
    ),
    rejected("plc/nonsense", "PLC-2", "gpu5", options={"device_map": "gpu5"}),
    rejected("plc/negative", "PLC-2", "device_map", options={"device_map": -1}),
    rejected("plc/hole", "PLC-3", "lm_head.weight", options={"device_map": {"model": "cpu"}}),
    rejected(
        "plc/hole-beside-disk",
        "PLC-3",
        "lm_head.weight",
        options={"device_map": {"model": "disk"}, "offload_folder": EmptyFolder()},
    ),
]
