"""Reading a file of a checkpoint, whoever wrote it and whatever lies in its place."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from reference_loader.errors import Unreadable

# The limit of safetensors for a header; a longer table of names is an attack or a damage.
LONGEST_TABLE = 100_000_000

# Stands where the file of a stored tensor stands, for a state dict in memory.
STATE_DICT = Path("(state_dict)")


def is_file(path: Path) -> bool:
    """Whether there is a regular file; False also for a name that no file can have."""
    return os.path.isfile(path)  # noqa: PTH113  what the system refuses raises in a Path's own


def opened(path: Path) -> BinaryIO:
    """The file, to be read.

    Raises:
        Unreadable: the system does not let it be opened (FMT-18).
    """
    try:
        return path.open("rb")
    except OSError as cause:
        raise Unreadable(f"{path} cannot be read: {cause.strerror}.", "See its mode.") from cause


def read_object(path: Path, **options: Any) -> dict[str, Any]:
    """A file that holds one JSON object; `options` are those of `json.loads`.

    Raises:
        Unreadable: see `opened`.
        ValueError: it holds anything else.
    """
    with opened(path) as file:
        if path.stat().st_size > LONGEST_TABLE:
            raise ValueError(f"it has more than {LONGEST_TABLE:,} bytes")
        return parse_object(file.read(LONGEST_TABLE), **options)


def parse_object(content: bytes, **options: Any) -> dict[str, Any]:
    """JSON in UTF-8 that is an object.

    Raises:
        ValueError: it is anything else.
    """
    try:
        parsed = json.loads(content.decode(), **options)
    except RecursionError as cause:
        raise ValueError("it is nested too deep") from cause
    if not isinstance(parsed, dict):
        raise ValueError("it holds no JSON object")
    return parsed


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; raises ValueError for a name that stands twice."""
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise ValueError(f"{name!r} stands twice")
        table[name] = value
    return table
