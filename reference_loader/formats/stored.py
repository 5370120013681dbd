"""One tensor of a checkpoint, as the header of its file describes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import torch


class Format(StrEnum):
    """What a file of tensors is."""

    SAFETENSORS = "safetensors"
    PICKLE = "pickle"
    STATE_DICT = "state_dict"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a checkpoint: the bytes from `start` to `stop` of `file`.

    Attributes:
        key: its name in the checkpoint.
        file: where it is stored; `source.files.STATE_DICT` for a state dict in memory.
        dtype, shape: as stored.
        start, stop: bytes of the file; from 0 where the format does not tell.
        format: how the file is read; decided once, with its header.
        viewable: whether a tensor on the CPU can share its memory: it is contiguous and aligned,
            and no other key has the same bytes.
        seal: the digest of the header, by which a replaced file is detected.
    """

    key: str
    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int
    format: Format
    viewable: bool = True
    seal: bytes = field(default=b"", repr=False)

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.stop - self.start
