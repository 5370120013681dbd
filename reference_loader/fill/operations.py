"""Carry out the conversions of a plan: what several stored tensors make together (CNV-1)."""

from __future__ import annotations

from pathlib import Path

import torch

from reference_loader.fill.copies import Copy
from reference_loader.fill.offload import Offloaded
from reference_loader.fill.ring import carriers
from reference_loader.formats.reader import Opened, opened
from reference_loader.formats.safetensors import MappedFile
from reference_loader.formats.stored import StoredTensor
from reference_loader.model.skeleton import Skeleton, put_into
from reference_loader.plan.decisions import Conversion
from reference_loader.plan.devices import DISK
from reference_loader.plan.plan import LoadPlan


def convert(plan: LoadPlan, skeleton: Skeleton, offloaded: Offloaded) -> None:
    """Make each converted tensor, its pieces read straight into their places.

    Args:
        plan: what to do.
        skeleton: the model, which is filled here.
        offloaded: takes what goes to disk, since no file holds it as the model has it (OFF-3).
    """
    files: dict[Path, Opened] = {}

    def source(stored: StoredTensor) -> torch.Tensor:
        if stored.file not in files:
            files[stored.file] = opened(stored.file, stored.format, plan.weights_only)
        return files[stored.file].view(stored).detach().contiguous()

    # Copies that wait are complete at the end of this block.
    with carriers() as carry:
        for conversion in plan.conversions:
            tensors = [source(stored) for stored in conversion.sources]
            if conversion.pieces is None:
                result = _computed(conversion, tensors)
            else:
                result = torch.empty(
                    conversion.shape, dtype=conversion.dtype, device=_memory(conversion)
                )
            for piece in conversion.pieces or ():
                stored, values = conversion.sources[piece.source], tensors[piece.source]
                start = values.storage_offset() + piece.offset
                part = values.as_strided(piece.size, piece.strides, start)
                if not conversion.waits:
                    result[piece.box].copy_(part)
                    continue
                file = files[stored.file]
                mapped = file if isinstance(file, MappedFile) else None
                copy = Copy(part, result[piece.box], mapped)
                carry(copy, plan.workers[conversion.device])
            if conversion.device == DISK:
                offloaded.write(conversion.target, result)
                continue
            path, _, leaf = conversion.target.rpartition(".")
            owner, held = skeleton.modules[path], conversion.target in plan.sharing.held
            put_into(owner, leaf, result, held=held)


def _computed(conversion: Conversion, tensors: list[torch.Tensor]) -> torch.Tensor:
    """The operations run on the values; each is cast first, as transformers does it."""
    cast = iter([tensor.to(conversion.dtype) for tensor in tensors])
    part = conversion.part
    inputs = {pattern: [next(cast) for _ in keys] for pattern, keys in part.keys.items()}
    made = part.converter.convert(part.first, inputs)[conversion.target]
    # Memory of its own: an operation may return a view of the file, or of another result.
    own = made.detach().to(_memory(conversion), copy=True)
    return own.contiguous()


def _memory(conversion: Conversion) -> torch.device:
    """Where a converted tensor is put together."""
    return torch.device("cpu") if conversion.device == DISK else conversion.device
