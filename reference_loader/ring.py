"""The way to a GPU: a ring of pinned slots a thread, filled from the file while others are sent.

What each trick is worth, and what is still to be measured, is in docs/gpu.md.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from reference_loader.copies import LIBC, Copy, Way
from reference_loader.errors import BadTensorFile

# Bytes of one pinned slot, slots of a thread, and threads: enough to keep a PCIe link busy.
SLOT = 2**23
SLOTS = 2
LANES = 8

PAGE = mmap.PAGESIZE

# What a slot has more than `SLOT`: direct reads begin and end at pages, and memory at one too.
MARGIN = 3 * PAGE


class Lane:
    """One thread's way to a GPU.

    On the CPU the slots are plain memory and sending is a copy: the same steps, to be tested.
    """

    def __init__(self, device: torch.device, size: int = SLOT, slots: int = SLOTS) -> None:
        self._device, self._size, self._count = device, size, slots
        self._on_gpu = device.type == "cuda"
        self._callers: Any = torch.cuda.current_stream(device) if self._on_gpu else None
        self._stream: Any = None

    def __enter__(self) -> Way:
        """In the thread itself, so that all lanes' memory is pinned at the same time."""
        if self._on_gpu:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            # What was freed a moment ago may still be in use there.
            self._stream.wait_stream(self._callers)
        self._slots = deque(self._slot() for _ in range(self._count))
        return self.carry

    def _slot(self) -> tuple[torch.Tensor, Any]:
        """Memory that begins at a page, and the event of its last having been sent."""
        whole = torch.empty(
            self._size + MARGIN, dtype=torch.uint8, device="cpu", pin_memory=self._on_gpu
        )
        sent: Any = torch.cuda.Event() if self._on_gpu else None  # type: ignore[no-untyped-call]
        return whole[-whole.data_ptr() % PAGE :], sent

    def carry(self, piece: Copy) -> None:
        """Read the piece into the oldest slot and send it; it arrives in its own time."""
        slot, sent = self._slots[0]
        if sent is not None:
            sent.synchronize()
        held = _read(piece, slot)
        values = held.view(piece.source.dtype).view(piece.source.shape)
        with torch.cuda.stream(self._stream):  # nothing, for None
            # Sent as it is stored and cast there: fewer bytes on the way, and no core is needed.
            arrived = values.to(self._device, non_blocking=True)
            piece.destination.copy_(arrived, non_blocking=True)
            if sent is not None:
                sent.record()
        self._slots.rotate(-1)

    def __exit__(self, *_: object) -> None:
        """Wait until everything has arrived."""
        if self._stream is not None:
            self._stream.synchronize()


def _read(piece: Copy, slot: torch.Tensor) -> torch.Tensor:
    """The source's bytes, in the slot: by reads, which are faster than its mapping's faults."""
    offset, size = piece.offset, piece.source.nbytes
    if offset is None or piece.file is None:
        slot[:size].copy_(piece.source.reshape(-1).view(torch.uint8))
        return slot[:size]
    before = offset % PAGE  # bytes of the page that are not the piece's
    memory = memoryview((ctypes.c_char * slot.nbytes).from_address(slot.data_ptr())).cast("B")
    path = piece.file.path
    start, stop = offset - before, before + size
    done = 0 if _cached(piece.source) else _read_directly(path, memory, start, stop)
    with path.open("rb", buffering=0) as file:
        while done < stop:
            count = os.preadv(file.fileno(), [memory[done:stop]], start + done)
            if not count:
                raise BadTensorFile(f"{path} became shorter while it was read.")
            done += count
    return slot[before:stop]


def _cached(source: torch.Tensor) -> bool:
    """Whether most pages of a mapped tensor are in the page cache, as far as the system tells."""
    start = source.data_ptr() // PAGE * PAGE
    pages = -(-(source.data_ptr() + source.nbytes - start) // PAGE)
    held = (ctypes.c_ubyte * pages)()
    if LIBC is None or LIBC.mincore(ctypes.c_void_p(start), ctypes.c_size_t(pages * PAGE), held):
        return True
    return 2 * bytes(held).count(1) >= pages


def _read_directly(path: Path, memory: memoryview, start: int, size: int) -> int:
    """Read what lies on the disk past the page cache, which costs a copy; the bytes that came."""
    with suppress(OSError):  # a file system without such reads
        file = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            return os.preadv(file, [memory[: -(-size // PAGE) * PAGE]], start)
        finally:
            os.close(file)
    return 0
