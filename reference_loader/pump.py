"""Carry out the plan: map, cast, place.

What each trick is worth is measured in docs/performance.md.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, repeat
from threading import Lock
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from reference_loader.devices import DISK, memory_device
from reference_loader.errors import BadTensorFile
from reference_loader.formats import Opened, opened
from reference_loader.offload import Offloaded
from reference_loader.plan import LoadPlan, Placement
from reference_loader.skeleton import EXTRA_STATE, put, put_into
from reference_loader.tensors import MappedFile

# Bytes of a file that are cast at a time: they, and what they become, stay in a core's cache.
CHUNK = 2**20

# Bytes of one pinned slot, and threads with two slots each: enough to keep a PCIe link busy.
SLOT = 2**23
LANES = 8

# madvise(2): forget pages that a file still has; give pages their memory before they are written
# to, since Linux 5.14.
DONT_NEED, POPULATE_WRITE = 4, 23

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Copy:
    """Values on their way: `source` into `destination`, of the same shape.

    A destination may be any part of a tensor, so what several stored tensors make up together is
    filled without a copy in between. `file` is where the source is mapped from, None for other
    memory, which must stay as it is.
    """

    source: torch.Tensor
    destination: torch.Tensor
    file: MappedFile | None

    def pieces(self, size: int) -> Iterator[Copy]:
        """The same in parts of at most `size` bytes of the source, in its order."""
        source, destination = self.source, self.destination
        if source.nbytes <= size:
            yield self
            return
        if source.is_contiguous() and destination.is_contiguous():
            each = size // source.element_size()
            sources, parts = (torch.split(t.view(-1), each) for t in (source, destination))
            yield from map(Copy, sources, parts, repeat(self.file))
            return
        for part in zip(source, destination, strict=True):
            yield from Copy(*part, self.file).pieces(size)


def pump(plan: LoadPlan, model: nn.Module, offloaded: Offloaded) -> None:
    """Fill every slot of `model` that the plan has a stored tensor for.

    A tensor whose dtype is the checkpoint's own becomes a view of the mapped file, so nothing is
    copied; another is cast once, from its stored value (DTY-7). One file is open at a time. What
    belongs on disk is noted in `offloaded` and its parameter stays empty (OFF-1).
    """
    modules = dict(model.named_modules(remove_duplicate=False))  # a path costs more to walk
    # disable=None: a bar on a terminal, nothing in a log.
    with tqdm(total=len(plan.placements), desc="Loading", leave=False, disable=None) as bar:
        for placements in _by_file(plan.placements):
            source = opened(placements[0].stored.file, plan.weights_only)
            copies: list[Copy] = []
            for placement in placements:
                _place(placement, source, modules, offloaded, copies)
            carry_out(copies)
            bar.update(len(placements))
    _move_buffers(plan, model)


def _by_file(placements: Iterable[Placement]) -> list[list[Placement]]:
    files = defaultdict(list)
    for placement in placements:
        files[placement.stored.file].append(placement)
    return [sorted(group, key=lambda placement: placement.stored.start) for group in files.values()]


def _place(
    placement: Placement,
    source: Opened,
    modules: Mapping[str, nn.Module],
    offloaded: Offloaded,
    copies: list[Copy],
) -> None:
    """Give the slot its tensor, or the memory that a copy, noted in `copies`, will fill."""
    on_disk = placement.device == DISK
    if on_disk and offloaded.leave(placement):
        return
    # Only the values count: no gradient flag (FMT-15), no order of memory (FMT-14).
    stored = source.view(placement.stored).detach().contiguous()
    path, _, leaf = placement.target.rpartition(".")
    if on_disk:
        offloaded.write(placement.target, stored.to(placement.dtype))
    elif _waits(placement):
        tensor = torch.empty(stored.shape, dtype=placement.dtype, device=placement.device)
        mapped = source if isinstance(source, MappedFile) else None
        copies.append(Copy(stored, tensor, mapped))
        put_into(modules[path], leaf, tensor)
    else:
        tensor = stored.to(device=placement.device, dtype=placement.dtype)
        put_into(modules[path], leaf, tensor)


def _waits(placement: Placement) -> bool:
    """Whether it pays to leave the copy to the workers; extra state is used as it is put."""
    if placement.target.endswith(EXTRA_STATE):
        return False
    kind = placement.device.type
    large = placement.action == "cast" and placement.stored.nbytes > CHUNK
    return kind == "cuda" or (kind == "cpu" and large)


def _move_buffers(plan: LoadPlan, model: nn.Module) -> None:
    """The buffers that no file holds, to where their modules are."""
    if plan.device_map is None:
        return
    for name, buffer in list(model.named_buffers()):
        put(model, name, buffer.to(memory_device(name, plan.device_map)))


def carry_out(copies: Iterable[Copy]) -> None:
    """Make the copies on all cores; when it returns the values are there and the threads gone."""
    devices = defaultdict(list)
    for copy in copies:
        devices[copy.destination.device].append(copy)
    for device, group in devices.items():
        if device.type == "cuda":
            lanes = [Lane(device) for _ in range(min(LANES, torch.get_num_threads()))]
            share_out(group, SLOT, [lane.carry for lane in lanes])
            for lane in lanes:
                lane.finish()
        else:
            share_out(group, CHUNK, [_cast] * torch.get_num_threads())


def share_out(copies: Iterable[Copy], size: int, ways: list[Callable[[Copy], None]]) -> None:
    """Have each way carry, in a thread of its own, the next piece that nobody has taken."""
    pieces = chain.from_iterable(copy.pieces(size) for copy in copies)
    lock, inference = Lock(), torch.is_inference_mode_enabled()

    def take() -> Copy | None:
        with lock:
            return next(pieces, None)

    def work(carry: Callable[[Copy], None]) -> None:
        _without_more_threads()
        with torch.inference_mode(inference):  # the caller's, which threads do not inherit
            for piece in iter(take, None):
                carry(piece)

    with ThreadPoolExecutor(len(ways)) as pool:
        for done in [pool.submit(work, way) for way in ways]:
            done.result()


def _without_more_threads() -> None:
    """Have torch use the calling thread alone: the workers are as many as the cores already.

    `torch.set_num_threads` would change the whole process; OpenMP's own setting is the thread's.
    """
    torch.get_num_threads()  # a thread's first question to torch resets that setting
    if _LIBC is not None and hasattr(_LIBC, "omp_set_num_threads"):
        _LIBC.omp_set_num_threads(1)


def _cast(piece: Copy) -> None:
    # One call for many pages instead of a fault for each.
    _advise(piece.destination, POPULATE_WRITE)
    piece.destination.copy_(piece.source)
    # The file's pages have been used; without this the source stays in memory beside the result.
    if _offset(piece) is not None:
        _advise(piece.source, DONT_NEED)


def _offset(piece: Copy) -> int | None:
    """Where the source lies in its file; None for memory that is no file's."""
    if piece.file is None or not piece.source.is_contiguous():
        return None
    return piece.file.offset(piece.source)


def _advise(tensor: torch.Tensor, advice: int) -> None:
    """madvise(2) on the pages that are the tensor's alone; where it is not known, nothing."""
    start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    stop = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if _LIBC is not None and stop > start and tensor.is_contiguous():
        _LIBC.madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), advice)


class Lane:
    """One thread's way to a GPU: two slots of pinned memory, filled while the other is sent.

    On the CPU the slots are plain memory and sending is a copy: the same steps, to be tested.
    """

    def __init__(self, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        self._device = device
        self._slots = [
            torch.empty(SLOT, dtype=torch.uint8, device="cpu", pin_memory=on_gpu) for _ in range(2)
        ]
        self._sent: list[Any] = [torch.cuda.Event() if on_gpu else None for _ in range(2)]  # type: ignore[no-untyped-call]
        self._stream: Any = torch.cuda.Stream(device) if on_gpu else None  # type: ignore[no-untyped-call]
        if self._stream is not None:
            # What was freed a moment ago may still be in use there.
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def carry(self, piece: Copy) -> None:
        """Read the piece into the older slot and send it; it arrives in its own time."""
        slot, sent = self._slots[0], self._sent[0]
        if sent is not None:
            sent.synchronize()
        held = slot[: piece.source.nbytes]
        _read(piece, held)
        values = held.view(piece.source.dtype).view(piece.source.shape)
        with torch.cuda.stream(self._stream):  # nothing, for None
            # Sent as it is stored and cast there: fewer bytes on the way, and no core is needed.
            arrived = values.to(self._device, non_blocking=True)
            piece.destination.copy_(arrived, non_blocking=True)
            if sent is not None:
                sent.record()
        self._slots.reverse()
        self._sent.reverse()

    def finish(self) -> None:
        """Wait until everything has arrived."""
        if self._stream is not None:
            self._stream.synchronize()


def _read(piece: Copy, into: torch.Tensor) -> None:
    """The source's bytes: by reads, which are faster than the faults of its mapping."""
    offset = _offset(piece)
    if offset is None or piece.file is None:
        into.copy_(piece.source.reshape(-1).view(torch.uint8))
        return
    left = memoryview((ctypes.c_char * into.nbytes).from_address(into.data_ptr())).cast("B")
    with piece.file.path.open("rb", buffering=0) as file:
        while left.nbytes:
            count = os.preadv(file.fileno(), [left], offset)
            if not count:
                raise BadTensorFile(f"{piece.file.path} became shorter while it was read.")
            left, offset = left[count:], offset + count
