"""The pages of a checkpoint's files: which files are mapped, and how many pages are resident."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

# Calls of Python functions from one sample to the next: any load makes thousands.
EVERY = 20

MAPS, STATUS = Path("/proc/self/maps"), Path("/proc/self/status")

Span = tuple[int, int]


@dataclass
class Resident:
    """The most bytes of mapped files that were resident at once, above those before."""

    peak: int = 0


def mapped(folder: Path) -> list[Span]:
    """First and last address of every mapping of a file in the folder, or below it."""
    inside = f" {folder.resolve()}/"
    lines = [line for line in MAPS.read_text("utf-8").splitlines() if inside in line]
    return [_span_of(line.split(maxsplit=1)[0]) for line in lines]


def is_view(tensor: torch.Tensor, spans: list[Span]) -> bool:
    """Whether the tensor's values lie in a mapped file."""
    return any(first <= tensor.data_ptr() < last for first, last in spans)


@contextmanager
def watched() -> Iterator[Resident]:
    """Sample how many bytes of mapped files are resident.

    A sample costs some microseconds, and is taken at every twentieth call of a Python function, in
    this thread and in every thread that starts meanwhile.
    """
    found, before, calls = Resident(), _resident_of_files(), 0

    def look(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        if event == "call" and (calls := calls + 1) % EVERY == 0:
            found.peak = max(found.peak, _resident_of_files() - before)

    profile, in_threads = sys.getprofile(), threading.getprofile()
    sys.setprofile(look)
    threading.setprofile(look)
    try:
        yield found
    finally:
        sys.setprofile(profile)
        threading.setprofile(in_threads)


def _span_of(text: str) -> Span:
    """First and last address of a mapping, from its line in /proc."""
    first, _, last = text.partition("-")
    return int(first, 16), int(last, 16)


def _resident_of_files() -> int:
    """Bytes of mapped files that are resident in this process."""
    text = STATUS.read_text("ascii")
    return int(text.partition("RssFile:")[2].split(maxsplit=1)[0]) * 1024
