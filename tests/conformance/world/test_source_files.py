"""A checkpoint's folder is the same only if nothing was written to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conformance.world.source_files import changed_files, source_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inner").mkdir()
    (tmp_path / "config.json").write_text("{}", "utf-8")
    (tmp_path / "inner" / "weights").write_bytes(b"1234")
    (tmp_path / "link").symlink_to("config.json")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


def _rewritten(folder: Path) -> None:
    """The same size and times, other bytes."""
    path = folder / "inner" / "weights"
    times = path.stat()
    path.write_bytes(b"4321")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


CHANGES: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "added": (lambda f: (f / "new").write_text("", "utf-8"), {".", "new"}),
    "removed": (lambda f: (f / "inner" / "weights").unlink(), {"inner", "inner/weights"}),
    "renamed": (lambda f: (f / "link").rename(f / "other"), {".", "link", "other"}),
    "mode": (lambda f: (f / "inner" / "weights").chmod(0o600), {"inner/weights"}),
    "times": (lambda f: os.utime(f / "config.json"), {"config.json", "link"}),
    "bytes": (_rewritten, {"inner/weights"}),
    "there and gone": (lambda f: ((f / "x").mkdir(), (f / "x").rmdir()), {"."}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen_where_it_is(name: str, folder: Path) -> None:
    change, places = CHANGES[name]
    before = source_files(folder)

    change(folder)

    assert set(changed_files(before, source_files(folder))) == places


def test_reading_changes_nothing(folder: Path) -> None:
    before = source_files(folder)

    (folder / "inner" / "weights").read_bytes()
    list(folder.rglob("*"))

    assert changed_files(before, source_files(folder)) == {}


def test_a_folder_that_is_not_there_has_no_files(tmp_path: Path) -> None:
    assert source_files(tmp_path / "nowhere") == {".": "absent"}
