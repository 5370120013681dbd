"""`LoadPlan`: every decision of a load, as data, taken before a weight is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from reference_loader.errors import shown
from reference_loader.formats.stored import StoredTensor


@dataclass(frozen=True, slots=True)
class Placement:
    """One stored tensor and the slot of the model it fills."""

    target: str
    stored: StoredTensor
    dtype: torch.dtype
    device: Any

    @property
    def action(self) -> str:
        """`view` of the mapped file where the dtype is the checkpoint's own, else `cast`.

        `disk` for one that stays on disk.
        """
        if self.device == "disk":
            return "disk"
        return "view" if self.dtype == self.stored.dtype else "cast"

    @property
    def nbytes(self) -> int:
        """Bytes in the model."""
        return self.stored.nbytes // self.stored.dtype.itemsize * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A stored tensor whose shape is not its slot's."""

    name: str
    stored: tuple[int, ...]
    model: tuple[int, ...]
    file: Path


@dataclass(frozen=True)
class LoadPlan:
    """What loading will do.

    Attributes:
        model_class: the class that is built.
        source: the folder, None with `state_dict`.
        files: weight files in the order in which they are read.
        why_files, why_dtype: why these files, why this dtype.
        dtype: the dtype the model is built in.
        device_map: module name to device or "disk"; None for the CPU (PLC-1).
        placements: what is read, and to where.
        missing: model keys that the checkpoint does not hold and no tie provides (INF-2).
        fresh: parameters that are initialised, with their dtype: missing ones, and mismatched
            ones when those are tolerated (MIS-1, MIS-5).
        shapes: of every slot that no stored tensor fills.
        unexpected: checkpoint keys, renamed, that the model has no place for (INF-3).
        ignored: such keys that nobody needs to hear of (MAP-5).
        mismatched: stored tensors of a wrong shape (INF-5).
        ties: groups of names that are one parameter; the first is stored or fresh (TIE-1).
        rivals: tied names that are stored as well as the first of their group (TIE-4).
        duplicates: checkpoint keys with further copies, and the files that hold these (IDX-2).
        superseded: checkpoint keys that name a slot another key fills.
        unlisted: keys in a shard that the index does not list (IDX-8).
        phantom: keys that the index lists and their shard does not hold (IDX-7).
        weights_only: whether a pickled file may run no code (FMT-5).
    """

    model_class: type
    source: Path | None
    files: tuple[Path, ...]
    why_files: str
    dtype: torch.dtype
    why_dtype: str
    device_map: Mapping[str, Any] | None
    placements: tuple[Placement, ...]
    missing: frozenset[str]
    fresh: Mapping[str, torch.dtype]
    unexpected: frozenset[str]
    ignored: frozenset[str]
    mismatched: tuple[Mismatch, ...]
    ties: tuple[tuple[str, ...], ...]
    rivals: Mapping[str, str]
    duplicates: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    superseded: frozenset[str] = frozenset()
    unlisted: frozenset[str] = frozenset()
    phantom: frozenset[str] = frozenset()
    weights_only: bool = True
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def disagreements(self) -> dict[str, list[str]]:
        """Everything `strict=True` objects to: kind to names."""
        found = {
            "missing": sorted(self.missing),
            "unexpected": sorted(self.unexpected),
            "mismatched": sorted(mismatch.name for mismatch in self.mismatched),
            "stored twice": sorted(self.duplicates.keys() | self.superseded),
            "not in the index": sorted(self.unlisted),
            "only in the index": sorted(self.phantom),
        }
        return {kind: names for kind, names in found.items() if names}

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON-ready data."""
        return {
            "model_class": self.model_class.__name__,
            "source": str(self.source),
            "files": [file.name for file in self.files],
            "why_files": self.why_files,
            "dtype": str(self.dtype),
            "why_dtype": self.why_dtype,
            "device_map": {name: str(place) for name, place in self._places().items()},
            "placements": [_placement_dict(placement) for placement in self.placements],
            "fresh": {name: str(dtype) for name, dtype in sorted(self.fresh.items())},
            "ignored": sorted(self.ignored),
            "ties": [list(names) for names in self.ties],
            **{kind.replace(" ", "_"): names for kind, names in self.disagreements.items()},
        }

    def _places(self) -> Mapping[str, Any]:
        return {"": "cpu"} if self.device_map is None else self.device_map

    def __str__(self) -> str:
        rows = [
            ("model", self.model_class.__name__),
            ("files", f"{len(self.files)} ({self.why_files})"),
            ("dtype", f"{self.dtype} ({self.why_dtype})"),
            *(("device", f"{place}  {name}".strip()) for name, place in self._places().items()),
            *_sizes(self.placements),
            *(("tied", " = ".join(names)) for names in self.ties),
            ("initialised", _listed(self.fresh)),
            ("ignored", _listed(self.ignored)),
            *((kind, _listed(names)) for kind, names in self.disagreements.items()),
        ]
        width = max(len(head) for head, _ in rows)
        return "\n".join(f"{head:<{width}}  {text}" for head, text in rows if text)


def _placement_dict(placement: Placement) -> dict[str, Any]:
    return {
        "target": placement.target,
        "key": placement.stored.key,
        "file": placement.stored.file.name,
        "shape": list(placement.stored.shape),
        "stored_dtype": str(placement.stored.dtype),
        "dtype": str(placement.dtype),
        "action": placement.action,
        "device": str(placement.device),
        "bytes": placement.stored.nbytes,
    }


def _sizes(placements: Iterable[Placement]) -> list[tuple[str, str]]:
    count: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for placement in placements:
        count[placement.action] += 1
        size[placement.action] += placement.nbytes
    return [(action, f"{count[action]} tensors, {size[action]:,} bytes") for action in count]


def _listed(names: Iterable[str], most: int = 6) -> str:
    ordered = [shown(name) for name in sorted(names)]
    more = f", and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(ordered[:most]) + more
