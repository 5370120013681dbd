"""OFF: weights on disk."""

from __future__ import annotations

from conformance.case import HALF, TWO_SHARDS, on_disk

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

CASES = [
    on_disk("off/head", "OFF-1", "PLC-4", device_map=HEAD, recipe=TWO_SHARDS),
    on_disk("off/one-layer", "OFF-1", "PLC-4", device_map=ONE_LAYER, recipe="llama-f32-3"),
    on_disk("off/layers-bf16", "OFF-1", device_map=ALL_LAYERS, recipe="llama-bf16-2"),
    on_disk("off/all", "OFF-2", device_map=ALL, recipe=TWO_SHARDS),
    on_disk("off/all-cast", "OFF-2", device_map=ALL, options=HALF),
    on_disk("off/pickled", "OFF-3", device_map=HEAD, faults=("pickled",)),
    on_disk("off/pickled-cast", "OFF-3", device_map=ALL_LAYERS, faults=("pickled",), options=HALF),
    on_disk("off/tied", "OFF-4", device_map=ALL, recipe="llama-tied-embedding"),
    on_disk("off/tied-head-only", "OFF-4", "MIS-3", device_map=ALL, recipe="llama-tied-head"),
    on_disk("off/tied-in-memory", "OFF-4", device_map=ALL_LAYERS, recipe="llama-tied-embedding"),
    on_disk("off/tied-different", "OFF-4", "TIE-4", device_map=ALL, recipe="llama-tied-separate"),
    on_disk("off/missing-inside", "OFF-5", "INF-2", device_map=ALL_LAYERS, faults=("missing-key",)),
    on_disk("off/missing-head", "OFF-5", "INF-2", device_map=HEAD, recipe="llama-untied-embedding"),
]
