"""Copies in pieces, and the threads that make them while more are prepared; for speed alone."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import repeat
from queue import SimpleQueue
from types import TracebackType
from typing import Self

import torch

from reference_loader.formats.safetensors import MappedFile

LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


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

    @property
    def offset(self) -> int | None:
        """Where a copy's source lies in its file; None for memory that is no file's."""
        if self.file is None or not self.source.is_contiguous():
            return None
        return self.file.offset(self.source)

    def pieces(self, size: int) -> Iterator[Copy]:
        """The copy in parts of at most `size` bytes of the source, in its order."""
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


Way = Callable[[Copy], None]


class Crew:
    """Threads of which each carries the next piece that nobody has taken.

    While they do, whoever gives them copies can prepare the next. At the end of the block all
    values are there and the threads gone; what failed in one of them is raised.

    Args:
        size: bytes of a piece.
        ways: one a thread; entered, and left, in the thread.
    """

    def __init__(self, size: int, ways: list[AbstractContextManager[Way]]) -> None:
        self._size, self._ways = size, ways
        self._pieces: SimpleQueue[Copy | None] = SimpleQueue()
        self._failed = False

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(len(self._ways))
        inference = torch.is_inference_mode_enabled()
        self._done = [self._pool.submit(self._work, way, inference) for way in self._ways]
        return self

    def carry(self, copy: Copy) -> None:
        """Have a copy made by the crew's threads."""
        for piece in copy.pieces(self._size):
            self._pieces.put(piece)

    def __exit__(self, kind: type | None, _: object, __: TracebackType | None) -> None:
        self._failed |= kind is not None
        for _way in self._ways:
            self._pieces.put(None)
        with self._pool:
            if kind is None:
                for done in self._done:
                    done.result()

    def _work(self, way: AbstractContextManager[Way], inference: bool) -> None:
        """Carry the next pieces of copies, in one of the crew's threads."""
        _without_more_threads()
        try:
            # The caller's mode, which threads do not inherit.
            with torch.inference_mode(inference), way as carry:
                for piece in iter(self._pieces.get, None):
                    if not self._failed:
                        carry(piece)
        except BaseException:
            self._failed = True
            raise


def _without_more_threads() -> None:
    """Have torch use one thread: the crew that makes copies has as many as cores already.

    `torch.set_num_threads` would change the whole process; OpenMP's own setting is the thread's.
    """
    torch.get_num_threads()  # a thread's first question to torch resets that setting
    if LIBC is not None and hasattr(LIBC, "omp_set_num_threads"):
        LIBC.omp_set_num_threads(1)
