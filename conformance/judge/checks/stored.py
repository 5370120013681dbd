"""The tensors stored in a checkpoint's safetensors files, as fingerprints."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import safe_open

from conformance.results.fingerprint import PART, fingerprints

# Shape and fingerprint of a tensor.
Stored = tuple[list[int], str]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of the folder."""
    return sorted(folder.glob("*.safetensors"))


def files_of(folder: Path, names: Iterable[str]) -> dict[Path, list[str]]:
    """Each safetensors file that is read, with those of the names that are read from it (RES-1).

    An index says which; a copy of a tensor in another shard is none of the checkpoint (IDX-2).
    """
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").exists() or not index.exists():
        return {path: list(names) for path in weight_files(folder)}
    where = json.loads(index.read_text("utf-8"))["weight_map"]
    found: dict[Path, list[str]] = {}
    for name in names:
        if name in where:
            found.setdefault(folder / where[name], []).append(name)
    return found


def cast(path: Path, dtypes: Mapping[str, str]) -> dict[str, Stored]:
    """The stored tensors, each cast once.

    Args:
        path: a safetensors file.
        dtypes: key to the dtype to cast to, such as `torch.bfloat16`; keys that the file lacks are
            passed over.
    """
    return _cast(path, path.stat().st_mtime_ns, tuple(dtypes.items()))


# The reference's observation and the loader's are held against the same tensors, one after the
# other: they are read once.
@lru_cache(maxsize=256)
def _cast(path: Path, written: int, dtypes: tuple[tuple[str, str], ...]) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    batch: dict[str, torch.Tensor] = {}
    wanted = {key: getattr(torch, dtype.removeprefix("torch.")) for key, dtype in dtypes}
    with safe_open(path, framework="pt") as file:
        keys = sorted(wanted.keys() & set(file.keys()))
        for key in keys:
            batch[key] = file.get_tensor(key).to(wanted[key])
            # In batches, so that a large file is neither in memory whole nor read by one core.
            if key == keys[-1] or sum(tensor.nbytes for tensor in batch.values()) > PART:
                digests = fingerprints(batch)
                found |= {name: (list(t.shape), digests[name]) for name, t in batch.items()}
                batch = {}
    return found


def has_nan(folder: Path, name: str) -> bool:
    """Whether the checkpoint stores NaN for the tensor; its key may lack a prefix or have one."""
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118  no mapping
                same = f".{key}".endswith(f".{name}") or f".{name}".endswith(f".{key}")
                if same and bool(file.get_tensor(key).isnan().any()):
                    return True
    return False
