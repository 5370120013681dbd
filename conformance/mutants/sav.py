"""Mutants of stage SAV: what a loaded model writes when it is saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from conformance.mutants.planting import Load, coming_out

Tensors = dict[str, torch.Tensor]


def _rewritten(load: Load, change: Callable[[Tensors], Tensors]) -> None:
    """Change the tensors of each file that the model saves."""

    def rewrite(folder: Path) -> None:
        for file in folder.glob("*.safetensors"):
            save_file(change(load_file(file)), file, {"format": "pt"})

    _afterwards(load, rewrite)


def _afterwards(load: Load, change: Callable[[Path], None]) -> None:
    """Change each folder that the model is saved into."""
    save = load.model.save_pretrained

    def otherwise(folder: Any, **options: Any) -> None:
        save(folder, **options)
        change(Path(folder))

    load.model.save_pretrained = otherwise


@coming_out("SAV-1", "sav/key-mapping")
def names_of_the_model_saved(load: Load) -> None:
    """What `key_mapping` renamed is saved under the names of the model."""
    load.model._weight_conversions = []
    _rewritten(load, lambda held: {k.removeprefix("module."): t for k, t in held.items()})


@coming_out("SAV-1", "sav/single")
def head_saved_twice(load: Load) -> None:
    """The head is saved under a second name too."""

    def change(held: Tensors) -> Tensors:
        return {**held, "head.weight": held["lm_head.weight"].clone()}

    _rewritten(load, change)


@coming_out("SAV-1", "sav/experts")
def last_expert_not_saved(load: Load) -> None:
    """The last expert is not saved."""
    _rewritten(load, lambda held: {k: t for k, t in held.items() if ".experts.11." not in k})


@coming_out("SAV-2", "sav/experts-cast")
def saved_experts_by_name(load: Load) -> None:
    """Expert 10 is saved as expert 2, and so on by the order of the names."""
    order = sorted(range(12), key=str)

    def change(held: Tensors) -> Tensors:
        moved = {}
        for key, tensor in held.items():
            before, mark, after = key.partition(".experts.")
            number, _, rest = after.partition(".")
            place = f"{before}{mark}{order[int(number)]}.{rest}" if mark else key
            moved[place] = tensor
        return moved

    _rewritten(load, change)


@coming_out("SAV-2", "sav/single")
def saved_transposed(load: Load) -> None:
    """Square matrices are saved transposed."""

    def change(held: Tensors) -> Tensors:
        square = {k for k, t in held.items() if t.ndim == 2 and t.shape[0] == t.shape[1]}
        return {k: t.t().contiguous() if k in square else t for k, t in held.items()}

    _rewritten(load, change)


@coming_out("SAV-2", "sav/experts-on-disk")
def offloaded_saved_as_zeros(load: Load) -> None:
    """What is on the disk is saved as zeros."""
    _rewritten(load, lambda held: {k: t * 0 if ".experts." in k else t for k, t in held.items()})


@coming_out("SAV-3", "sav/cast")
def saved_wide(load: Load) -> None:
    """The file has float32, whatever the model has."""
    _rewritten(load, lambda held: {k: t.float() for k, t in held.items()})


@coming_out("SAV-4", "sav/sharded")
def index_of_another_shard(load: Load) -> None:
    """The index names the first shard for every key."""

    def change(folder: Path) -> None:
        for path in folder.glob("*.index.json"):
            index = json.loads(path.read_text())
            first = min(index["weight_map"].values())
            index["weight_map"] = dict.fromkeys(index["weight_map"], first)
            path.write_text(json.dumps(index))

    _afterwards(load, change)


@coming_out("SAV-4", "sav/single")
def total_of_the_first_shard(load: Load) -> None:
    """The index has the bytes of one shard as the size of all."""

    def change(folder: Path) -> None:
        for path in folder.glob("*.index.json"):
            index = json.loads(path.read_text())
            index["metadata"]["total_size"] //= len(set(index["weight_map"].values()))
            path.write_text(json.dumps(index))

    _afterwards(load, change)
