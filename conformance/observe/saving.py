"""What a loaded model writes when it is saved, as pairs of facts: what must be, and what is.

The truth is the checkpoint that was loaded, or for shards what they say of one another; no other
loader is asked.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open

from conformance.observe.experiment import Pairs, Usage
from conformance.results.fingerprint import fingerprints

INDEX = "model.safetensors.index.json"


def names(usage: Usage) -> Pairs:
    """The saved file has the keys of the checkpoint, and no others (SAV-1)."""
    published, saved = _before_and_after(usage)
    held = dict.fromkeys(published, "saved")
    found = dict.fromkeys(saved, "saved")
    every = dict.fromkeys([*held, *found])
    return {f"saved name {key}": (held.get(key, "-"), found.get(key, "-")) for key in every}


def values(usage: Usage) -> Pairs:
    """What is saved under a key of the checkpoint is its tensor in the model's dtype (SAV-2)."""
    published, saved = _before_and_after(usage)
    pairs: Pairs = {}
    for key in [key for key in published if key in saved]:
        wanted = published[key].to(saved[key].dtype)
        before, after = fingerprints({key: wanted})[key], fingerprints({key: saved[key]})[key]
        pairs[f"saved {key}"] = (
            f"{list(wanted.shape)} {before}",
            f"{list(saved[key].shape)} {after}",
        )
    return pairs


def dtypes(usage: Usage) -> Pairs:
    """What is saved has the dtype that it has in the model, and the config says so (SAV-3)."""
    model = usage.model()
    wanted = str(model.dtype).removeprefix("torch.")
    with tempfile.TemporaryDirectory(prefix="conformance-saved-") as place:
        model.save_pretrained(place)
        config = json.loads((Path(place) / "config.json").read_text("utf-8"))
        pairs = {
            f"saved dtype of {key}": (wanted, str(tensor.dtype).removeprefix("torch."))
            for key, tensor in stored_in(Path(place)).items()
            if tensor.is_floating_point()
        }
    pairs["saved dtype in the config"] = (wanted, config.get("dtype", config.get("torch_dtype")))
    return pairs


def shards(usage: Usage) -> Pairs:
    """Saved in shards, each key is in one, the index names it, and the total is right (SAV-4)."""
    model = usage.model()
    with tempfile.TemporaryDirectory(prefix="conformance-saved-") as place:
        folder = Path(place)
        model.save_pretrained(folder / "whole")
        whole = stored_in(folder / "whole")
        size = sum(tensor.nbytes for tensor in whole.values())
        model.save_pretrained(folder / "shards", max_shard_size=max(1, size // 3))
        files = {path.name: list(_keys(path)) for path in (folder / "shards").glob("*.safetensors")}
        index = json.loads((folder / "shards" / INDEX).read_text("utf-8"))
        saved = stored_in(folder / "shards")
    places = {key: [name for name, keys in files.items() if key in keys] for key in whole}
    listed = index["weight_map"]
    pairs: Pairs = {
        f"shard of {key}": ([listed.get(key, "not listed")], found) for key, found in places.items()
    }
    pairs["shard: keys"] = (sorted(whole), sorted(listed))
    pairs["shard: several"] = (True, len(files) > 1)
    pairs["shard: total size"] = (size, index["metadata"].get("total_size"))
    before, after = fingerprints(whole), fingerprints(saved)
    return pairs | {f"shard: values of {key}": (before[key], after.get(key)) for key in before}


def _before_and_after(usage: Usage) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The tensors of the checkpoint, and those that the loaded model saves."""
    with tempfile.TemporaryDirectory(prefix="conformance-saved-") as place:
        usage.model().save_pretrained(place)
        return stored_in(usage.source), stored_in(Path(place))


def stored_in(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor in the safetensors files of a folder; of a copy in two files the last."""
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {key: file.get_tensor(key) for key in _keys(path)}
    return found


def _keys(path: Path) -> list[str]:
    """The keys of a file."""
    with safe_open(path, framework="pt") as file:
        return list(file.keys())
