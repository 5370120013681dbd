"""Where fuzzing begins: the files of the fixtures, whole and damaged, up to 64 kB."""

from __future__ import annotations

import io
from collections.abc import Iterator

import torch

from conformance_fixtures.faults import FAULTS
from conformance_fixtures.write import materialise
from tests.fuzz.fuzz_readers import LARGEST, READERS

# A checkpoint of each kind that the readers meet, and the faults that are put upon it.
GROUNDS = (("llama-f32", ()), ("llama-f32-2", ()), ("llama-f32", ("pickled",)))


def seeds(reader: str) -> Iterator[bytes]:
    """Every different content of the reader's file that a fixture has."""
    name, _ = READERS[reader]
    seen: set[bytes] = set()
    if reader == "pickled":
        yield from _small_pickles()
    for recipe, before in GROUNDS:
        for fault in FAULTS:
            content = _content(recipe, (*before, fault), name)
            if content and content not in seen:
                seen.add(content)
                yield content


def _small_pickles() -> Iterator[bytes]:
    """In torch's two formats; those of the fixtures are longer than what is tried."""
    shared = torch.ones(6)
    forms = {
        "plain": {"a": torch.ones(2), "b": torch.zeros(3, 4, dtype=torch.bfloat16)},
        "parameters": {"a": torch.nn.Parameter(torch.ones(2))},
        "views": {"a": shared[:2], "b": shared[2:].view(2, 2).T, "c": shared[:1].expand(4)},
        "others": {"epoch": 3, "note": "a text", "losses": [1.5, None, (True, b"x")]},
        "sparse": {"a": torch.eye(3).to_sparse()},
    }
    for content in forms.values():
        for legacy in (False, True):
            kept = io.BytesIO()
            torch.save(content, kept, _use_new_zipfile_serialization=not legacy)
            yield kept.getvalue()


def _content(recipe: str, faults: tuple[str, ...], name: str) -> bytes:
    try:
        path = materialise(recipe, faults) / name
    except ValueError:  # the fault is of another kind of checkpoint
        return b""
    readable = path.is_file() and path.stat().st_size <= 4 * LARGEST and path.stat().st_mode & 0o400
    return path.read_bytes()[:LARGEST] if readable else b""
