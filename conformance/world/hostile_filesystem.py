"""What goes wrong around a load: a full disk, unreadable files, weights replaced meanwhile."""

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

# Space for a config but not for weights: a file is truncated here as on a full disk.
ROOM = 8192

# Linux: version 3 of the call; the capabilities that override a file's permissions: to read and
# write, and to search.
_CAPABILITIES, _OVERRIDING = 0x20080522, 1 << 1 | 1 << 2


@contextmanager
def disk_full() -> Iterator[None]:
    """Within, the disk is full: a file that grows beyond `ROOM` bytes fails with an `OSError`.

    It sets the limit of file sizes, which can be lifted again; a full disk has another errno.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def unprivileged() -> Iterator[None]:
    """Within, file permissions apply to this thread and those it starts, even if root runs them."""
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
    """A copy of the folder to damage, at the same path every time, for one process at a time."""
    place = cache_root() / "copied"
    place.mkdir(parents=True, exist_ok=True)
    with (place / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(place / "checkpoint", ignore_errors=True)
        try:
            yield Path(shutil.copytree(source, place / "checkpoint"))
        finally:
            shutil.rmtree(place / "checkpoint", ignore_errors=True)
