"""`LoadPlan`: every decision of a load, as data, taken before a weight is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from reference_loader.errors import shown
from reference_loader.model.sharing import NOTHING_SHARED, Sharing
from reference_loader.plan.decisions import (
    Conversion,
    Fresh,
    Inventory,
    Match,
    Mismatch,
    Placement,
    Ties,
    Workers,
)
from reference_loader.plan.dtypes import ModelDtype
from reference_loader.source.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class LoadPlan:
    """What loading will do.

    Attributes:
        model_class: the class that is built.
        checkpoint: the folder, the weight files in the order in which they are read, and why
            these.
        model_dtype: the dtype the model is built in, and why.
        device_map: module name to device or "disk"; None for the CPU (PLC-1).
        inventory: what the files hold.
        match: what of it is read, and to where.
        ties: names that are one parameter.
        fresh: parameters that are initialised: missing ones, and mismatched ones when those are
            tolerated (MIS-1, MIS-5).
        buffers: buffers that no file holds, and the device of each.
        missing: model keys that the checkpoint does not hold and no tie provides (INF-2).
        ignored: unexpected keys that are not reported (MAP-5).
        workers: the threads that copy to a device, for copies that wait.
        hooks: whether accelerate's hooks move tensors while the model runs (PLC-4).
        weights_only: whether a pickled file may not execute code (FMT-5).
        sharing: slots whose tensors have other users in the model, so that they stay the objects,
            or in the memory, that the constructor gave (TIE-1).
    """

    model_class: type
    checkpoint: Checkpoint
    model_dtype: ModelDtype
    device_map: Mapping[str, Any] | None
    inventory: Inventory
    match: Match
    ties: Ties
    fresh: Mapping[str, Fresh]
    buffers: Mapping[str, torch.device]
    missing: frozenset[str]
    ignored: frozenset[str]
    workers: Mapping[torch.device, Workers] = field(default_factory=dict)
    hooks: bool = False
    weights_only: bool = True
    sharing: Sharing = NOTHING_SHARED

    @property
    def source(self) -> Path | None:
        """The folder of the checkpoint; None with `state_dict`."""
        return self.checkpoint.folder

    @property
    def files(self) -> tuple[Path, ...]:
        """The weight files."""
        return self.checkpoint.files

    @property
    def dtype(self) -> torch.dtype:
        """The dtype the model is built in."""
        return self.model_dtype.dtype

    @property
    def placements(self) -> tuple[Placement, ...]:
        """What is read, and to where."""
        return self.match.placements

    @property
    def conversions(self) -> tuple[Conversion, ...]:
        """What is made of several stored tensors, or by an operation (CNV-1)."""
        return self.match.conversions

    @property
    def filled(self) -> tuple[Placement | Conversion, ...]:
        """Every tensor of the model that stored tensors fill."""
        return self.match.filled

    @property
    def mismatched(self) -> tuple[Mismatch, ...]:
        """Stored tensors of a wrong shape (INF-5)."""
        return self.match.mismatched

    @property
    def unexpected(self) -> frozenset[str]:
        """Checkpoint keys, renamed, that the model has no slot for, but the ignored (INF-3)."""
        return self.match.unexpected - self.ignored

    @property
    def disagreements(self) -> dict[str, list[str]]:
        """Everything `strict=True` objects to: kind to names."""
        found = {
            "missing": sorted(self.missing),
            "unexpected": sorted(self.unexpected),
            "mismatched": sorted(mismatch.name for mismatch in self.mismatched),
            "stored twice": sorted(self.inventory.duplicates.keys() | self.match.superseded),
            "not in the index": sorted(self.inventory.unlisted),
            "only in the index": sorted(self.inventory.phantom),
        }
        return {kind: names for kind, names in found.items() if names}

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON-ready data."""
        fresh = dict(sorted(self.fresh.items()))
        return {
            "model_class": self.model_class.__name__,
            "source": str(self.source),
            "files": [file.name for file in self.checkpoint.files],
            "why_files": self.checkpoint.why,
            "dtype": str(self.dtype),
            "why_dtype": self.model_dtype.why,
            "device_map": {name: str(place) for name, place in self._places().items()},
            "placements": [placement.to_dict() for placement in self.placements],
            "conversions": [conversion.to_dict() for conversion in self.conversions],
            "fresh": {name: str(each.dtype) for name, each in fresh.items()},
            "fresh_devices": {name: str(each.device) for name, each in fresh.items()},
            "buffers": {name: str(device) for name, device in sorted(self.buffers.items())},
            "workers": {str(device): asdict(each) for device, each in self.workers.items()},
            "hooks": self.hooks,
            "weights_only": self.weights_only,
            "ignored": sorted(self.ignored),
            "ties": [list(names) for names in self.ties.groups],
            **{kind.replace(" ", "_"): names for kind, names in self.disagreements.items()},
        }

    def _places(self) -> Mapping[str, Any]:
        return {"": "cpu"} if self.device_map is None else self.device_map

    def __str__(self) -> str:
        count: Counter[str] = Counter()
        size: Counter[str] = Counter()
        for placement in self.placements:
            count[placement.action] += 1
            size[placement.action] += placement.nbytes
        rows = [
            ("model", self.model_class.__name__),
            ("files", f"{len(self.checkpoint.files)} ({self.checkpoint.why})"),
            ("dtype", f"{self.dtype} ({self.model_dtype.why})"),
            *(("device", f"{place}  {name}".strip()) for name, place in self._places().items()),
            *((str(a), f"{count[a]} tensors, {size[a]:,} bytes") for a in count),
            *(("threads", f"{each.threads} for {d}") for d, each in self.workers.items()),
            *(("converted", line) for line in _converted(self.conversions)),
            *(("tied", " = ".join(names)) for names in self.ties.groups),
            ("initialised", _listed(self.fresh)),
            ("ignored", _listed(self.ignored)),
            *((kind, _listed(names)) for kind, names in self.disagreements.items()),
        ]
        width = max(len(head) for head, _ in rows)
        return "\n".join(f"{head:<{width}}  {text}" for head, text in rows if text)


def _converted(conversions: Sequence[Conversion], most: int = 4) -> Iterator[str]:
    """A line for each of the first conversions, and one for the rest."""
    for each in conversions[:most]:
        yield f"{shown(each.target)}  <-  {shown(str(each.part))}"
    if len(conversions) > most:
        size = sum(each.nbytes for each in conversions)
        yield f"and {len(conversions) - most} more; {size:,} bytes in all"


def _listed(names: Iterable[str], most: int = 6) -> str:
    ordered = [shown(name) for name in sorted(names)]
    more = f", and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(ordered[:most]) + more
