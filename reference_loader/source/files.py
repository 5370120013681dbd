"""Opening files of a checkpoint and parsing their JSON, with untrusted content in mind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from reference_loader.errors import Unreadable

# The limit that safetensors sets for a header. A larger JSON file is damaged or an attack.
LONGEST_TABLE = 100_000_000

# Used as the file name of the tensors of a state dict.
STATE_DICT = Path("(state_dict)")


def is_file(path: Path) -> bool:
    """Whether the path is a regular file; False also for names that the system rejects."""
    return os.path.isfile(path)  # noqa: PTH113  Path.is_file raises for a rejected name


def opened(path: Path) -> BinaryIO:
    """The file, opened for reading.

    Raises:
        Unreadable: the system denies it (FMT-18).
    """
    try:
        return path.open("rb")
    except OSError as cause:
        raise Unreadable(
            f"The file {path} cannot be read: {cause.strerror}.", "Check the file's permissions."
        ) from cause


def read_object(path: Path, **options: Any) -> dict[str, Any]:
    """The JSON object in a file; `options` are those of `json.loads`.

    Raises:
        Unreadable: see `opened`.
        ValueError: the file is too large, or see `parse_object`. It says what is wrong and leaves
            it to the caller to name the file.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > LONGEST_TABLE:
            raise ValueError(f"it is larger than {LONGEST_TABLE:,} bytes")
        # Python reserves as much memory as is asked for.
        return parse_object(file.read(size), **options)


def parse_object(content: bytes, **options: Any) -> dict[str, Any]:
    """The JSON object in UTF-8 text.

    Raises:
        ValueError: the content is not UTF-8, not JSON, nested too deeply, or not an object.
    """
    try:
        parsed = json.loads(content.decode(), **options)
    except RecursionError as cause:
        raise ValueError("its JSON is nested too deeply") from cause
    if not isinstance(parsed, dict):
        raise ValueError("it is not a JSON object")
    return parsed


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object from its pairs; raises ValueError for a duplicate name (IDX-12)."""
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise ValueError(f"the name {name!r} appears twice")
        table[name] = value
    return table
