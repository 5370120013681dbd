"""The tensors stored in a checkpoint's safetensors files, as fingerprints."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import safe_open

from conformance.cases.case import Case
from conformance.results.fingerprint import PART, fingerprints
from reference_loader.errors import WeightsNotFound
from reference_loader.options import Options
from reference_loader.source.checkpoint import Checkpoint, locate, of_file

# The options by which a load chooses among the weight files of a folder.
CHOOSING = ("variant", "use_safetensors")

# Shape and fingerprint of a tensor.
Stored = tuple[list[int], str]


def weight_files(case: Case, folder: Path) -> list[Path]:
    """The safetensors files that are read, as the plan has them: a folder may hold others."""
    try:
        files = _chosen(case, folder).files
    except WeightsNotFound:  # they are an option of the load
        return []
    return sorted(path for path in files if path.suffix == ".safetensors")


def files_of(case: Case, folder: Path, names: Iterable[str]) -> dict[Path, list[str]]:
    """Each safetensors file that is read, with those of the names that are read from it (RES-1).

    An index says which; a copy of a tensor in another shard is none of the checkpoint (IDX-2).
    """
    index = _chosen(case, folder).index
    if index is None:
        return {path: list(names) for path in weight_files(case, folder)}
    found: dict[Path, list[str]] = {}
    for name in names:
        if name in index.shard_of and index.shard_of[name].suffix == ".safetensors":
            found.setdefault(index.shard_of[name], []).append(name)
    return found


def _chosen(case: Case, folder: Path) -> Checkpoint:
    """Which files a load of the case reads: the first step of the plan."""
    if case.given and case.hub is None:
        return of_file(folder / case.given, "the file given")
    kept = {name: case.options[name] for name in CHOOSING if name in case.options}
    place = folder / case.options.get("subfolder", "")
    try:
        named = json.loads((place / "config.json").read_text("utf-8")).get("transformers_weights")
    except OSError:  # the config is an option of the load
        named = None
    return locate(place, Options.of(kept), named)


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


def has_nan(case: Case, folder: Path, name: str) -> bool:
    """Whether the checkpoint stores NaN for the tensor; its key may lack a prefix or have one."""
    for path in weight_files(case, folder):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118  no mapping
                same = f".{key}".endswith(f".{name}") or f".{name}".endswith(f".{key}")
                if same and bool(file.get_tensor(key).isnan().any()):
                    return True
    return False
