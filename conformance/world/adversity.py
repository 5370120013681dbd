"""What goes wrong around a load: a full disk, files nobody may read, weights that are exchanged."""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conformance_fixtures.cache import cache_root

# Room for a config and none for weights: a file is cut off here as on a full disk.
ROOM = 8192

# Linux: the third form of the call; reading and writing, and searching, against a file's mode.
_CAPABILITIES, _OVERRIDING = 0x20080522, 1 << 1 | 1 << 2


@contextmanager
def disk_full() -> Iterator[None]:
    """Within, a file of this process that grows beyond `ROOM` bytes fails with an `OSError`.

    It is the limit of a file's size, which can be lifted again; a full disk has another number.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def unprivileged() -> Iterator[None]:
    """Within, the modes of files hold for this thread and those it starts, for root's too."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0)
    before = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; low words, high words
    if libc.capget(header, before):
        raise OSError(ctypes.get_errno(), "capget")
    within = (ctypes.c_uint32 * 6)(*before)
    within[0] &= ~_OVERRIDING
    libc.capset(header, within)
    try:
        yield
    finally:
        libc.capset(header, before)


@contextmanager
def copied(source: Path) -> Iterator[Path]:
    """A copy of the folder, of the same name every time and of one process at a time."""
    place = cache_root() / "copied"
    place.mkdir(parents=True, exist_ok=True)
    with (place / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(place / "checkpoint", ignore_errors=True)
        try:
            yield Path(shutil.copytree(source, place / "checkpoint"))
        finally:
            shutil.rmtree(place / "checkpoint", ignore_errors=True)
