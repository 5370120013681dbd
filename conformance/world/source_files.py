"""The files of a checkpoint's folder, by which a load shows that it wrote there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

ABSENT = "absent"


def source_files(folder: Path) -> dict[str, str]:
    """Path within the folder to what a load must leave as it is; the folder itself is ".".

    No content is read. Nobody can set the time of the last change of a file's status, and every
    write sets it, so where that time is the same the bytes are the same.
    """
    found = {".": _facts(folder)}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            found[str(path.relative_to(folder))] = _facts(path)
    return found


def _facts(path: Path) -> str:
    """Kind, mode, size, owner and times of the file, and of what a link leads to."""
    try:
        status = path.lstat()
    except OSError:
        return ABSENT
    facts = (
        f"{stat.filemode(status.st_mode)}, {status.st_size} bytes, of {status.st_uid}, inode "
        f"{status.st_ino}, modified {status.st_mtime_ns}, changed {status.st_ctime_ns}"
    )
    if stat.S_ISLNK(status.st_mode):
        return f"{facts}, to {path.readlink()}: {_behind(path)}"
    return facts


def _behind(link: Path) -> str:
    """The times of what a link leads to; it may lead nowhere, or to itself."""
    try:
        status = link.stat()
    except OSError:
        return ABSENT
    return f"modified {status.st_mtime_ns}, changed {status.st_ctime_ns}"


def changed_files(before: dict[str, str], after: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Path to its facts before and after, of the files that are not as they were."""
    return {
        name: (before.get(name, ABSENT), after.get(name, ABSENT))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    }
