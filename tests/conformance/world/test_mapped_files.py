"""MEM-3: pages that a load holds too long are seen, and those it lets go are not."""

from __future__ import annotations

import mmap
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from conformance.cases.case import Case
from conformance.judge.checks import objections
from conformance.results.records import Observation
from conformance.world.mapped_files import EVERY, is_view, mapped, watched

SIZE, PARTS = 32 * 2**20, 8


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(bytes(SIZE))
    return path


def touch(opened: mmap.mmap, first: int, last: int) -> None:
    """Read a byte of every page, and call a Python function now and then."""
    for place in range(first, last, mmap.PAGESIZE):
        _ = opened[place]
    for _ in range(2 * EVERY):
        call()


def call() -> None:
    """For the profiler to see."""


def holds_all(path: Path) -> None:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as opened:
        touch(opened, 0, SIZE)


def lets_go(path: Path) -> None:
    part = SIZE // PARTS
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as opened:
        for first in range(0, SIZE, part):
            touch(opened, first, first + part)
            opened.madvise(mmap.MADV_DONTNEED, first, part)


def in_a_thread(load: Callable[[Path], None]) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        thread = threading.Thread(target=load, args=(path,))
        thread.start()
        thread.join()

    return run


@pytest.mark.parametrize(
    ("load", "objected"),
    [(holds_all, True), (lets_go, False), (in_a_thread(holds_all), True)],
    ids=["holds-all", "lets-go", "holds-all-in-a-thread"],
)
def test_who_holds_more_than_half_is_seen(
    file: Path, load: Callable[[Path], None], objected: bool
) -> None:
    with watched() as resident:
        load(file)
    assert (resident.peak > SIZE / 2) == objected
    case = Case("tests/pages", ("MEM-3",), "", folder=file.parent)
    seen = Observation(resident_bytes=resident.peak)
    assert [each.clause for each in objections(case, seen)] == ["MEM-3"] * objected


def test_what_was_held_before_does_not_count_and_the_profiler_is_as_before(file: Path) -> None:
    before = sys.getprofile(), threading.getprofile()
    with file.open("rb") as held, mmap.mmap(held.fileno(), 0, prot=mmap.PROT_READ) as opened:
        touch(opened, 0, SIZE)
        with watched() as resident:
            touch(opened, 0, SIZE)
    assert resident.peak < SIZE / 2
    assert (sys.getprofile(), threading.getprofile()) == before


def test_a_view_is_told_from_a_copy(file: Path) -> None:
    tensor = torch.from_file(str(file), size=SIZE, dtype=torch.uint8)
    spans = mapped(file.parent)
    assert is_view(tensor, spans)
    assert not is_view(tensor.clone(), spans)
    del tensor
    assert mapped(file.parent) == []
