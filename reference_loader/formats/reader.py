"""One interface for every format: safetensors, pickled files, a state dict in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch

from reference_loader.formats.pickle import PickledFile, read_pickled_header
from reference_loader.formats.safetensors import MappedFile, read_header
from reference_loader.formats.state_dict import StateDict, read_state_dict
from reference_loader.formats.stored import Format, StoredTensor
from reference_loader.options import Options
from reference_loader.source.files import STATE_DICT


class Opened(Protocol):
    """Something that tensors are read from, once the plan is made."""

    def view(self, stored: StoredTensor) -> torch.Tensor:
        """The tensor, sharing the file's memory where it is viewable."""
        ...


def header(file: Path, options: Options) -> dict[str, StoredTensor]:
    """What a file holds, without its payload; this is where its format is decided, by its name.

    Raises:
        BadTensorFile, UnsafePickle: see `read_header` and `read_pickled_header`.
    """
    if file == STATE_DICT:
        return read_state_dict({} if options.state_dict is None else options.state_dict)
    if file.name.endswith(".safetensors"):
        return read_header(file)
    return read_pickled_header(file, options.weights_only)


def opened(file: Path, format: Format, weights_only: bool) -> Opened:
    """The same file, to read tensors from; `format` as its header says it (`StoredTensor.format`).

    Raises:
        BadTensorFile, UnsafePickle: the file can no longer be read.
    """
    if format is Format.STATE_DICT:
        return StateDict()
    return MappedFile(file) if format is Format.SAFETENSORS else PickledFile(file, weights_only)
