"""The parts of a plan: what is stored, which slot it fills and how, what is tied, what is new."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch

from reference_loader.formats.stored import StoredTensor
from reference_loader.model.architecture import Converter
from reference_loader.plan.tracing import Piece


class Action(StrEnum):
    """What is done with a stored tensor."""

    #: The parameter shares the memory of the mapped file, or of the state dict.
    VIEW = "view"
    #: It is copied as it is stored: to another device, or because it cannot be a view.
    COPY = "copy"
    #: It is converted to another dtype, on whichever device.
    CAST = "cast"
    #: It is copied, and cast, into the memory that the constructor gave and another tensor shares.
    FILL = "fill"
    #: It stays in its safetensors file, which is read whenever its module runs.
    OFFLOAD = "disk offload"
    #: It is written to the offload folder, since its file is not a safetensors file.
    WRITE = "disk offload (written)"


@dataclass(frozen=True, slots=True)
class Placement:
    """One stored tensor and the slot of the model it fills.

    Attributes:
        target: the name of the slot.
        stored: the tensor of the checkpoint.
        dtype: in the model.
        device: a `torch.device`, or "disk".
        action: how it gets there.
        waits: whether a worker thread makes the copy; see `LoadPlan.workers`.
    """

    target: str
    stored: StoredTensor
    dtype: torch.dtype
    device: Any
    action: Action
    waits: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes in the model."""
        return self.stored.nbytes // self.stored.dtype.itemsize * self.dtype.itemsize

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "target": self.target,
            "key": self.stored.key,
            "file": self.stored.file.name,
            "format": str(self.stored.format),
            "shape": list(self.stored.shape),
            "stored_dtype": str(self.stored.dtype),
            "dtype": str(self.dtype),
            "action": str(self.action),
            "device": str(self.device),
            "waits": self.waits,
            "bytes": self.stored.nbytes,
        }


@dataclass(frozen=True, slots=True)
class Part:
    """The stored tensors of a conversion, as its converter takes them.

    Attributes:
        first: the first tensor of the model that is made of them.
        keys: pattern of the converter to the keys that fit it, in the order of their numbers.
        converter: what makes them.
    """

    first: str
    keys: Mapping[str, tuple[str, ...]]
    converter: Converter

    def __str__(self) -> str:
        lists = [(len(keys), keys[0]) for keys in self.keys.values()]
        told = [first if number == 1 else f"{number} x {first}" for number, first in lists]
        return f"{', '.join(told)}: {self.converter.operations}"


@dataclass(frozen=True, slots=True)
class Conversion:
    """A tensor of the model that is made of stored tensors by operations (CNV-1).

    Attributes:
        target, shape, dtype: of the tensor.
        device: a `torch.device`, or "disk".
        part: which stored tensors, and the operations.
        sources: these tensors, in the order of `part.keys`.
        pieces: which elements of which source lie where; None where the operations compute values,
            and are run on the sources.
        waits: whether worker threads make the copies.
    """

    target: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: Any
    part: Part
    sources: tuple[StoredTensor, ...]
    pieces: tuple[Piece, ...] | None
    waits: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes in the model."""
        return math.prod(self.shape) * self.dtype.itemsize

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "target": self.target,
            "keys": {pattern: list(keys) for pattern, keys in self.part.keys.items()},
            "operations": self.part.converter.operations,
            "read": "in place" if self.pieces is not None else "computed",
            "shape": list(self.shape),
            "dtype": str(self.dtype),
            "device": str(self.device),
            "waits": self.waits,
            "bytes": self.nbytes,
        }


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A stored tensor whose shape is not its slot's."""

    name: str
    stored: tuple[int, ...]
    model: tuple[int, ...]
    file: Path


@dataclass(frozen=True, slots=True)
class Fresh:
    """A parameter that is initialised; on the device "disk" it is written to the offload folder."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    device: Any

    @property
    def nbytes(self) -> int:
        """Bytes in the model."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Workers:
    """The threads that copy to one device, and the memory of the host that they take.

    Attributes:
        threads: how many.
        slots: of each thread; one is filled while another is sent.
        size: bytes of a slot, and of the pieces that a tensor is copied in.
    """

    threads: int
    slots: int
    size: int

    @property
    def nbytes(self) -> int:
        """Of all slots."""
        return self.threads * self.slots * self.size


@dataclass(frozen=True)
class Inventory:
    """What a checkpoint holds, one tensor a key.

    Attributes:
        stored: checkpoint key to tensor.
        duplicates: checkpoint keys with further copies, and the files that hold these (IDX-2).
        unlisted: keys in a shard that the index does not list (IDX-8).
        phantom: keys that the index lists and their shard does not hold (IDX-7).
    """

    stored: Mapping[str, StoredTensor]
    duplicates: Mapping[str, tuple[Path, ...]]
    unlisted: frozenset[str]
    phantom: frozenset[str]


@dataclass(frozen=True)
class Match:
    """Which stored tensor fills which slot, and what is left on either side.

    Attributes:
        placements: what is read, and to where.
        conversions: what is made of several stored tensors, or by an operation (CNV-1).
        mismatched: stored tensors of a wrong shape (INF-5).
        unexpected: checkpoint keys, renamed, that the model has no slot for.
        superseded: checkpoint keys that name a slot another key fills.
    """

    placements: tuple[Placement, ...]
    conversions: tuple[Conversion, ...]
    mismatched: tuple[Mismatch, ...]
    unexpected: frozenset[str]
    superseded: frozenset[str]

    @property
    def filled(self) -> tuple[Placement | Conversion, ...]:
        """Every tensor of the model that stored tensors fill."""
        return (*self.placements, *self.conversions)


@dataclass(frozen=True)
class Ties:
    """Which names are one parameter, and which of them provides it.

    Attributes:
        groups: names that are one parameter; the first is stored or fresh (TIE-1).
        rivals: a name that is stored too, to the provider of its group (TIE-4).
        provided: names that need nothing, since another name of their group is stored.
    """

    groups: tuple[tuple[str, ...], ...]
    rivals: Mapping[str, str]
    provided: frozenset[str]
