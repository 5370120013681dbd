"""Mutants of stage MEM: memory."""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

import torch

from conformance.mutants.planting import Load, coming_out


@coming_out("MEM-1", "mem/views")
def weights_copied(load: Load) -> None:
    """Every parameter is a copy of what lies in the file."""
    for parameter in load.model.parameters():
        parameter.data = parameter.data.clone()


@coming_out("MEM-2", "mem/let-go")
def file_kept_after_a_cast(load: Load) -> None:
    """The tensors of the file are held beside the parameters that were cast from them."""
    load.model.held = list(load.stored.values())


HELD: list[Any] = []


@coming_out("MEM-4", "use/single")
def model_held(load: Load) -> None:
    """The loader keeps the model for ever."""
    HELD.append(load.model)


@coming_out("MEM-4", "use/cast")
def weight_held(load: Load) -> None:
    """The loader keeps a view of one parameter."""
    HELD.append(load.base.norm.weight.detach())


@coming_out("MEM-4", "use/single")
def file_held(load: Load) -> None:
    """The loader keeps the file mapped."""
    path = next(Path(load.source).glob("*.safetensors"))
    with path.open("rb") as file:
        HELD.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


@coming_out("MEM-5", "use/single")
def written_through(load: Load) -> None:
    """A parameter is a shared mapping of its file: what is written to it is written to the file."""
    path = next(Path(load.source).glob("*.safetensors"))
    start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8:start])
    name, weight = "model.norm.weight", load.base.norm.weight
    at = start + header[name]["data_offsets"][0]
    with path.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE)
    weight.data = torch.frombuffer(shared, dtype=weight.dtype, count=weight.numel(), offset=at)


@coming_out("MEM-6", "use/single")
def read_again(load: Load) -> None:
    """The norm is read from its file whenever the state of the model is asked for."""
    model, source, norm = load.model, Path(load.source), load.base.norm
    named = type(model).named_parameters

    def fresh(*arguments: Any, **options: Any) -> Any:
        first = next(source.glob("*.safetensors")).read_bytes()[:1]
        if first == b"\xff":
            norm.weight.data.zero_()
        return named(model, *arguments, **options)

    model.named_parameters = fresh


@coming_out("MEM-7", "use/cast")
def mapped_after_a_cast(load: Load) -> None:
    """A file stays mapped although every tensor was cast."""
    path = next(Path(load.source).glob("*.safetensors"))
    with path.open("rb") as file:
        load.model.held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
