"""Cases of stage OFF: disk offload."""

from __future__ import annotations

from typing import Any

from conformance.cases.case import (
    IN_MEMORY,
    TWO_SHARDS,
    Case,
    EmptyFolder,
    on_disk,
    placed,
    rejected,
)

# The old name of `dtype`, which every release knows.
AUTO, OLD_HALF = {"torch_dtype": "auto"}, {"torch_dtype": "float16"}

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

INSIDE, BUFFERED = (
    "conformance.world.user_models:WithBufferInside",
    "conformance.world.user_models:WithBuffer",
)
BUFFERS_TOO = {"offload_buffers": True}
EXTRA = ("unexpected-key",)


def without_folder(name: str, device_map: dict[str, str], **more: Any) -> Case:
    """Disk offload of weights that must be written, without an offload folder."""
    options = {"device_map": device_map} | more.pop("options", {})
    return rejected(f"off/no-folder-{name}", "OFF-7", "offload_folder", options=options, **more)


CASES = [
    on_disk("off/head", "OFF-1", "OFF-6", "PLC-4", device_map=HEAD, recipe=TWO_SHARDS),
    on_disk("off/one-layer", "OFF-1", "PLC-4", device_map=ONE_LAYER, recipe="llama-f32-3"),
    on_disk("off/layers-bf16", "OFF-1", device_map=ALL_LAYERS, recipe="llama-bf16-2", options=AUTO),
    on_disk(
        "off/state-dict-offloaded", "OFF-1", device_map=HEAD, options={"offload_state_dict": True}
    ),
    on_disk("off/all", "OFF-2", "OFF-6", device_map=ALL, recipe=TWO_SHARDS),
    on_disk("off/all-cast", "OFF-2", "OFF-6", device_map=ALL, options=OLD_HALF),
    on_disk("off/pickled", "OFF-3", "OFF-6", device_map=HEAD, faults=("pickled",)),
    on_disk(
        "off/pickled-cast", "OFF-3", device_map=ALL_LAYERS, faults=("pickled",), options=OLD_HALF
    ),
    on_disk(
        "off/pickled-all", "OFF-3", "OFF-6", device_map=ALL, recipe=TWO_SHARDS, faults=("pickled",)
    ),
    on_disk(
        "off/pickled-tied",
        "OFF-3",
        "OFF-4",
        "OFF-6",
        "MIS-3",
        device_map=ALL,
        recipe="llama-tied-head",
        faults=("pickled",),
    ),
    on_disk(
        "off/from-state-dict", "OFF-3", "RES-10", device_map=HEAD, options=IN_MEMORY, given=None
    ),
    on_disk("off/tied-in-memory", "OFF-4", device_map=ALL_LAYERS, recipe="llama-tied-embedding"),
    on_disk(
        "off/missing-inside",
        "OFF-5",
        "OFF-6",
        "INF-2",
        device_map=ALL_LAYERS,
        faults=("missing-key",),
    ),
    on_disk(
        "off/missing-head",
        "OFF-5",
        "OFF-6",
        "INF-2",
        device_map=HEAD,
        recipe="llama-untied-embedding",
    ),
    on_disk(
        "off/missing-norm-cast",
        "OFF-5",
        "INF-2",
        device_map=ALL,
        faults=("missing-norm",),
        options=OLD_HALF,
    ),
    *(
        on_disk(
            f"off/buffer-{name}",
            "OFF-8",
            device_map=device_map,
            model=model,
            faults=faults,
            options=options,
        )
        for name, device_map, model, faults, options in (
            ("stored", ALL_LAYERS, INSIDE, EXTRA, {}),
            ("stored-too", ALL_LAYERS, INSIDE, EXTRA, BUFFERS_TOO),
            ("of-constructor", ALL, BUFFERED, (), {}),
            ("of-constructor-too", ALL, BUFFERED, (), BUFFERS_TOO),
        )
    ),
    placed("off/no-folder", "OFF-6", "OFF-1", device_map=HEAD, recipe=TWO_SHARDS),
    placed("off/no-folder-all-cast", "OFF-6", "OFF-2", device_map=ALL, options=OLD_HALF),
    without_folder("pickled", HEAD, faults=("pickled",)),
    without_folder("missing", ALL_LAYERS, faults=("missing-key",)),
    without_folder("state-dict", HEAD, given=None, options=IN_MEMORY),
    rejected(
        "off/disk-full",
        "OFF-9",
        "lm_head.weight",
        faults=("pickled",),
        options={"device_map": HEAD, "offload_folder": EmptyFolder()},
        under=("disk-full",),
    ),
]
