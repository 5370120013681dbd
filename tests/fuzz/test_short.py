"""A short campaign, the same in every run: readers on damaged files, loads of damaged folders."""

from __future__ import annotations

import ast
import shutil
import time
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance_fixtures.write import materialise
from reference_loader import LoadError, from_pretrained
from tests.fuzz.fuzz_readers import BYTES, READERS, Finding, Fuzzed
from tests.fuzz.fuzz_seeds import seeds

# Of the words of a campaign, as bytes.
WORDS = [
    ast.literal_eval(f"b{line}")
    for line in Path(__file__).with_name("json.dict").read_text().splitlines()
    if line.startswith('"')
]

GROUNDS = (
    ("llama-f32-2", ()),
    ("llama-generation", ()),
    ("llama-f32", ("pickled",)),
    ("llama-f32", ("pickled-legacy",)),
)

# Of the processor, what a whole load may take; every file is below 150 kB.
SECONDS = 1.0


@cache
def fuzzed(reader: str) -> tuple[Fuzzed, list[bytes]]:
    return Fuzzed(reader), list(seeds(reader))


@st.composite
def damaged(draw: st.DrawFn, content: bytes, digits: bool = True) -> bytes:
    """Up to four changes: a byte, a word put in, a part cut out or repeated, an early end."""
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        size = draw(st.sampled_from((1, 2, 8, 100, 4000)))
        word = draw(st.sampled_from(WORDS))
        byte = draw(st.integers(0, 255))
        if not digits and (word.strip(b"-").isdigit() or 48 <= byte < 58):
            word, byte = b"[", 91
        changes = (
            content[:place] + bytes([byte]) + content[place + 1 :],
            content[:place] + word + content[place + draw(st.sampled_from((0, len(word)))) :],
            content[:place] + content[place + size :],
            content[: place + size] + content[place:],
            content[:place],
        )
        content = draw(st.sampled_from(changes))
    return content


@pytest.mark.parametrize("reader", READERS)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(reader: str, data: st.DataObject) -> None:
    read, grounds = fuzzed(reader)
    read(data.draw(damaged(data.draw(st.sampled_from(grounds)))))


@given(data=st.data())
def test_a_folder_with_a_damaged_file_is_loaded_or_refused(
    data: st.DataObject, tmp_path_factory: Any, highest_memory: Any
) -> None:
    recipe, faults = data.draw(st.sampled_from(GROUNDS))
    folder = tmp_path_factory.mktemp("fuzz") / "checkpoint"
    shutil.copytree(materialise(recipe, faults), folder)
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    # A number in the config may ask for any number of layers, and gets them (docs/damage.md).
    digits = path.name != "config.json"
    path.write_bytes(data.draw(damaged(path.read_bytes(), digits)))
    taken: list[int] = []
    started = time.process_time()
    with highest_memory(taken):
        loaded_or_refused(folder)
    assert time.process_time() - started < SECONDS
    assert taken[0] < BYTES
    shutil.rmtree(folder)


def loaded_or_refused(folder: Path) -> None:
    try:
        from_pretrained(folder)
    except LoadError as error:
        assert str(error).replace("\n", "").isprintable()
    except Exception as error:
        # STA-6: what the model class raises in its constructor is its own.
        calls = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
        assert "construct" in calls, repr(error)


def planted(act: Callable[[], object]) -> Callable[[Path], None]:
    def reader(folder: Path) -> None:
        act()

    return reader


@pytest.mark.parametrize(
    ("act", "told"),
    [
        pytest.param(lambda: {}["x"], "KeyError", id="error"),
        pytest.param(lambda: [0] * 40_000_000, "bytes of memory", id="memory"),
        pytest.param(lambda: spend(1.2), "s and", id="time"),
        pytest.param(lambda: fail(LoadError("a\x1bb")), "", id="escaped"),
    ],
)
def test_what_a_reader_must_not_do_is_a_finding(
    act: Callable[[], object], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Fuzzed("config")
    monkeypatch.setattr(read, "_reader", planted(act))
    if not told:
        read(b"{}")
        return
    with pytest.raises(Finding, match=told):
        read(b"{}")


def spend(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def fail(error: Exception) -> None:
    raise error
