"""Where fuzzing begins: the files of the fixtures, whole and damaged, up to 64 kB."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz_readers import LARGEST, READERS

from fixtures.faults import FAULTS
from fixtures.write import materialise

# A checkpoint of each kind that the readers meet, and the faults that are put upon it.
GROUNDS = (("llama-f32", ()), ("llama-f32-2", ()), ("llama-f32", ("pickled",)))


def seeds(reader: str) -> Iterator[bytes]:
    """Every different content of the reader's file that a fixture has."""
    name, _ = READERS[reader]
    seen: set[bytes] = set()
    for recipe, before in GROUNDS:
        for fault in FAULTS:
            content = _content(recipe, (*before, fault), name)
            if content and content not in seen:
                seen.add(content)
                yield content


def _content(recipe: str, faults: tuple[str, ...], name: str) -> bytes:
    try:
        path = materialise(recipe, faults) / name
    except ValueError:  # the fault is of another kind of checkpoint
        return b""
    readable = path.is_file() and path.stat().st_size <= 4 * LARGEST and path.stat().st_mode & 0o400
    return path.read_bytes()[:LARGEST] if readable else b""
