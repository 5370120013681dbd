"""The pages of a checkpoint's files: what is mapped, and how much lies in memory meanwhile."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from conformance.results.records import Divergence

CLAUSE = "MEM-3"
MOST = 0.5  # of the checkpoint's bytes

# Calls of Python functions from one look to the next: a load of any loader makes thousands.
EVERY = 20

MAPS, STATUS = Path("/proc/self/maps"), Path("/proc/self/status")

Span = tuple[int, int]


def mapped(folder: Path) -> list[Span]:
    """First and last address of every mapping of a file in the folder, or below it."""
    inside = f" {folder.resolve()}/"
    lines = [line for line in MAPS.read_text("utf-8").splitlines() if inside in line]
    return [_span(line.split(maxsplit=1)[0]) for line in lines]


def is_view(tensor: torch.Tensor, spans: list[Span]) -> bool:
    """Whether the tensor's values lie in one of the mappings."""
    return any(first <= tensor.data_ptr() < last for first, last in spans)


@contextmanager
def watched(size: int, found: list[Divergence]) -> Iterator[None]:
    """Object, in `found`, if more than half of `size` bytes of files lie in memory at any time.

    What the process had of files before is not counted. A look costs some microseconds, and is
    taken at every twentieth call of a Python function, in every thread that begins meanwhile.
    """
    held, calls, most = _of_files(), 0, 0

    def look(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls, most
        if event == "call" and (calls := calls + 1) % EVERY == 0:
            most = max(most, _of_files() - held)

    before, in_threads = sys.getprofile(), threading.getprofile()
    sys.setprofile(look)
    threading.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(before)
        threading.setprofile(in_threads)
        if most > MOST * size:
            found.append(Divergence("state", "pages of the source", "half at most", "more", CLAUSE))


def _span(text: str) -> Span:
    first, _, last = text.partition("-")
    return int(first, 16), int(last, 16)


def _of_files() -> int:
    """Bytes of files that lie in memory as this process has mapped them."""
    text = STATUS.read_text("ascii")
    return int(text.partition("RssFile:")[2].split(maxsplit=1)[0]) * 1024
