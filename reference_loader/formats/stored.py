"""One tensor of a checkpoint, as the header of its file describes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file, as its header describes it: the bytes from `start` to `stop`.

    `seal` is the digest of that header, by which the file is known again.
    """

    key: str
    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int
    seal: bytes = field(default=b"", repr=False, kw_only=True)

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.stop - self.start
