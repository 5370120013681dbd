"""The memory of this process, on the host and on the GPU. Linux only: it reads /proc."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
PAGE = 4096
INTERVAL = 0.001  # seconds between two samples


@dataclass
class Peaks:
    """Peaks above the memory held at first, in bytes.

    `total` is the kernel's own peak of both kinds together, which may peak at different times.
    """

    anonymous: int = 0
    file: int = 0
    total: int = 0


def resident(*names: str) -> list[int]:
    """Fields of /proc/self/status, such as `RssAnon`, in bytes."""
    fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return [int(fields[name].split()[0]) * 1024 for name in names]


def is_told() -> bool:
    """Whether this system reports the peak of a process; some containers do not."""
    return os.access(CLEAR, os.W_OK)


@contextmanager
def peaks(sampled: bool) -> Iterator[Peaks]:
    """The peaks of memory in the block; anonymous and file-backed apart only if `sampled`."""
    found = Peaks()
    CLEAR.write_text("5")  # resets the kernel's own peak
    (before,) = resident("VmRSS")
    stop = threading.Event()
    thread = threading.Thread(target=_sample_memory, args=(found, stop))
    if sampled:
        thread.start()
    try:
        yield found
    finally:
        stop.set()
        if sampled:
            thread.join()
        found.total = resident("VmHWM")[0] - before


def _sample_memory(found: Peaks, stop: threading.Event) -> None:
    """Sample this process's memory until stopped."""
    anonymous, file = resident("RssAnon", "RssFile")
    while not stop.wait(INTERVAL):
        now = resident("RssAnon", "RssFile")
        found.anonymous = max(found.anonymous, now[0] - anonymous)
        found.file = max(found.file, now[1] - file)


def warm(size: int) -> None:
    """Touch `size` bytes of memory and release them.

    A virtual machine's memory that its host has reclaimed is up to ten times slower to touch; every
    contender starts with resident memory.
    """
    with mmap.mmap(-1, max(size, mmap.PAGESIZE)) as held:
        view = (ctypes.c_char * len(held)).from_buffer(held)
        ctypes.memset(view, 1, len(held))
        del view


def forget(folder: Path) -> None:
    """Evict the files of a folder from the page cache, so that memory holds none of them."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def on_gpu(torch: Any) -> dict[str, int]:
    """The GPU memory of this process and its peak, in bytes."""
    free, whole = torch.cuda.mem_get_info()
    return {
        "allocated": torch.cuda.max_memory_allocated(),
        "reserved": torch.cuda.max_memory_reserved(),
        "taken": whole - free,
    }
