"""Fast copies: read into a slot, sent from there, cast on arrival; runs only for what waits.

Here for speed alone: in plain mode (`speed.plain`) the plan lets no copy wait. What each part is
worth is in docs/performance.md, what is still to be measured in docs/gpu.md.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch

from reference_loader.errors import BadTensorFile
from reference_loader.fill.copies import LIBC, Copy, Crew, Way
from reference_loader.formats.safetensors import MappedFile
from reference_loader.plan.decisions import Workers

PAGE = mmap.PAGESIZE

# What a slot has more than its size: direct reads begin and end at pages, and memory at one too.
MARGIN = 3 * PAGE

# Pages of a piece by which it is judged whether it is in the page cache.
ASKED = 16

# madvise(2): give pages their memory before they are written to, since Linux 5.14.
POPULATE_WRITE = 23


@contextmanager
def carriers() -> Iterator[Callable[[Copy, Workers], None]]:
    """A function that has copies made through the ring; at the end of the block all are complete.

    Each device has its own threads. None is started before there is something to copy.
    """
    crews: dict[torch.device, Crew] = {}

    def carry(copy: Copy, workers: Workers) -> None:
        device = copy.destination.device
        if device not in crews:
            lanes = [Lane(device, workers.size, workers.slots) for _ in range(workers.threads)]
            crews[device] = stack.enter_context(Crew(workers.size, [*lanes]))
        crews[device].carry(copy)

    with ExitStack() as stack:
        yield carry


class Lane:
    """One thread's way into the memory of a device, by slots that it fills in turn.

    For a GPU they are pinned, and one is filled while another is sent. For the CPU one is enough:
    what was read is still in the core's cache when it is cast; otherwise the steps are the same.
    """

    def __init__(self, device: torch.device, size: int, slots: int) -> None:
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
        # Memory that begins at a page, and the event of its last having been sent.
        self._slots: deque[tuple[torch.Tensor, Any]] = deque()
        for _ in range(self._count):
            size, pinned = self._size + MARGIN, self._on_gpu
            whole = torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=pinned)
            sent: Any = torch.cuda.Event() if pinned else None  # type: ignore[no-untyped-call]
            self._slots.append((whole[-whole.data_ptr() % PAGE :], sent))
        return self.carry

    def carry(self, piece: Copy) -> None:
        """Read the piece into the ring's oldest slot and send it; it arrives in its own time."""
        slot, sent = self._slots[0]
        if sent is not None:
            sent.synchronize()
        else:
            _populate(piece.destination)  # one call for many pages instead of a fault for each
            if _read_in_place(piece):
                return
        values = _read_piece(piece, slot)
        with torch.cuda.stream(self._stream):  # nothing, for None
            if values.dtype != piece.destination.dtype or not piece.destination.is_contiguous():
                # Sent as it is stored and cast there: fewer bytes on the way, no core is needed.
                values = values.to(self._device, non_blocking=True)
            piece.destination.copy_(values, non_blocking=True)
            if sent is not None:
                sent.record()
        self._slots.rotate(-1)

    def __exit__(self, *_: object) -> None:
        """Wait until everything sent from the ring has arrived."""
        if self._stream is not None:
            self._stream.synchronize()


def _populate(tensor: torch.Tensor) -> None:
    """Fault in the pages that are a tensor's alone, ahead of its copy; where unknown, nothing."""
    start = -(-tensor.data_ptr() // PAGE) * PAGE
    stop = (tensor.data_ptr() + tensor.nbytes) // PAGE * PAGE
    if LIBC is not None and stop > start and tensor.is_contiguous():
        LIBC.madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), POPULATE_WRITE)


def _read_in_place(piece: Copy) -> bool:
    """Read a piece of a file into the CPU's memory where it belongs, if it needs no cast."""
    source, destination, offset = piece.source, piece.destination, piece.offset
    alike = (source.shape, source.dtype) == (destination.shape, destination.dtype)
    # What is not alike, torch casts or refuses: here memory would be overrun.
    if piece.file is None or offset is None or not alike or not destination.is_contiguous():
        return False
    if not _cached(source):  # it is read past the page cache, for which the slot has room
        return False
    memory = (ctypes.c_char * source.nbytes).from_address(destination.data_ptr())
    _read(piece.file, memoryview(memory).cast("B"), offset, 0, source.nbytes)
    return True


def _read_piece(piece: Copy, slot: torch.Tensor) -> torch.Tensor:
    """A copied piece's values: of a file by reads, which cost less than faults of its mapping.

    Memory that is no file's is copied into the slot only if that is pinned.
    """
    source, offset, size = piece.source, piece.offset, piece.source.nbytes
    if offset is not None and piece.file is not None:
        held = _read_file(piece.file, offset, size, slot, _cached(source))
    elif slot.is_pinned():
        held = slot[:size].copy_(source.reshape(-1).view(torch.uint8))
    else:
        return source
    return held.view(source.dtype).view(source.shape)


def _read_file(
    file: MappedFile, offset: int, size: int, slot: torch.Tensor, cached: bool
) -> torch.Tensor:
    """Read a piece of a file into a slot of the ring, past the page cache if it is not there."""
    before = offset % PAGE  # bytes of the page that are not the piece's
    memory = memoryview((ctypes.c_char * slot.nbytes).from_address(slot.data_ptr())).cast("B")
    start, stop = offset - before, before + size
    done = 0 if cached else _read_directly(file, memory, start, stop)
    _read(file, memory, start, done, stop)
    return slot[before:stop]


def _read(file: MappedFile, memory: memoryview, start: int, done: int, stop: int) -> None:
    """Read the bytes from `done` to `stop` of what begins at `start` of the file."""
    while done < stop:
        try:
            count = os.preadv(file.descriptor, [memory[done:stop]], start + done)
        except OSError as cause:
            raise BadTensorFile(f"{file.path} could not be read: {cause}.") from cause
        if not count:
            raise BadTensorFile(f"{file.path} became shorter while it was read.")
        done += count


def _cached(source: torch.Tensor) -> bool:
    """Whether the first pages of a mapped tensor are in the page cache, as far as the system tells.

    To ask after all of them costs a few hundredths of a cast.
    """
    start = source.data_ptr() // PAGE * PAGE
    pages = min(ASKED, -(-(source.data_ptr() + source.nbytes - start) // PAGE))
    held = (ctypes.c_ubyte * pages)()
    if LIBC is None or LIBC.mincore(ctypes.c_void_p(start), ctypes.c_size_t(pages * PAGE), held):
        return True
    return 2 * bytes(held).count(1) >= pages


def _read_directly(file: MappedFile, memory: memoryview, start: int, size: int) -> int:
    """Read into a slot what is on disk, past the page cache, which costs a copy; bytes read."""
    with suppress(OSError):  # a file system without such reads
        direct = os.open(file.path, os.O_RDONLY | os.O_DIRECT)
        try:
            if os.path.sameopenfile(direct, file.descriptor):
                return os.preadv(direct, [memory[: -(-size // PAGE) * PAGE]], start)
        finally:
            os.close(direct)
    return 0
