"""Reading and checking a shard index, `*.index.json` (IDX-1 to IDX-13)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from reference_loader.errors import BadIndex, ShardNotFound, UnsafePath
from reference_loader.source.files import is_file, read_object, without_duplicates

SAFE = ".safetensors"


@dataclass(frozen=True)
class ShardIndex:
    """A shard index.

    Attributes:
        path: the index file.
        shard_of: stored key to the path of its shard.
        total_size: the bytes of all tensors as the index states, or None; not relied on (IDX-10).
    """

    path: Path
    shard_of: Mapping[str, Path]
    total_size: int | None

    @property
    def shards(self) -> tuple[Path, ...]:
        """Every shard once, in order of name."""
        return tuple(sorted(set(self.shard_of.values())))


def read_index(path: Path) -> ShardIndex:
    """Read an index and check that its shards exist.

    Raises:
        BadIndex, UnsafePath: see `parse_index`.
        BadIndex: a safetensors index names a file of another format (IDX-13).
        ShardNotFound: a shard does not exist (IDX-6).
    """
    index = parse_index(path)
    if absent := [shard for shard in index.shards if not is_file(shard)]:
        raise _absent(path, absent, index.shards)
    for shard in index.shards:
        if SAFE in path.name and shard.suffix != SAFE:
            raise BadIndex(
                f"The index {path} names {shard.name!r}, which is not a safetensors file.",
                "Save the checkpoint again in one format.",
            )
    return index


def _absent(path: Path, absent: Sequence[Path], named: Collection[Path]) -> ShardNotFound:
    """The error for shards that do not exist, with what lies there under other names."""
    told = f"the shard {absent[0].name!r}, but {absent[0]} does not exist."
    if len(absent) > 1:
        names = ", ".join(repr(shard.name) for shard in absent)
        told = f"{len(absent)} shards that do not exist: {names}."
    others = sorted(
        each.name for each in path.parent.glob(f"*{absent[0].suffix}") if each not in named
    )
    if others:
        told += f" It does not name {', '.join(others[:4])}, which lie beside it."
    return ShardNotFound(
        f"The index {path} names {told}",
        "Download or copy the shards again, with the index that belongs to them."
        if others
        else "Download or copy the shard again.",
    )


def parse_index(path: Path) -> ShardIndex:
    """Read an index whose shards need not exist yet.

    Raises:
        BadIndex: the file is not a JSON object, lists a key twice, maps a key to something other
            than a file name, or lacks a valid `metadata` or `weight_map` (IDX-4, IDX-5, IDX-11,
            IDX-12).
        UnsafePath: a shard is outside the folder (IDX-9).
        Unreadable: the system denies reading the file (FMT-18).
    """
    content = _parse(path)
    metadata = _table(path, content, "metadata")
    weight_map = _table(path, content, "weight_map")
    shards: dict[str, Path] = {}
    for key, name in weight_map.items():
        if not isinstance(name, str) or name not in shards:
            shards[name] = _shard(path, key, name)
    shard_of = {key: shards[name] for key, name in weight_map.items()}
    return ShardIndex(path, shard_of, _total_size(metadata))


def _parse(path: Path) -> dict[str, Any]:
    try:
        return read_object(path, object_pairs_hook=without_duplicates)
    except ValueError as cause:
        raise BadIndex(f"The index {path} is malformed: {cause}.", "Download it again.") from cause


def _table(path: Path, content: dict[str, Any], name: str) -> dict[str, Any]:
    table = content.get(name)
    if not isinstance(table, dict) or (name == "weight_map" and not table):
        raise BadIndex(
            f"The index {path} has no valid {name!r}.",
            "Save the checkpoint again: an index needs the objects 'metadata' and 'weight_map'.",
        )
    return table


def _shard(path: Path, key: str, name: object) -> Path:
    if not isinstance(name, str) or not name:
        raise BadIndex(
            f"The index {path} maps the key {key!r} to {name!r}, which is not a file name.",
            "Save the checkpoint again, or correct the index.",
        )
    if leads_outside(name):
        raise UnsafePath(
            f"The index {path} maps the key {key!r} to {name!r}, which is outside its folder.",
            "Do not load this checkpoint unless you trust its author.",
        )
    return path.parent / name


def leads_outside(name: str) -> bool:
    r"""Whether a relative file name points outside its folder, on any system (IDX-9).

    Example:
        >>> [leads_outside(name) for name in ("a/b.bin", "../b.bin", "/b.bin", r"C:\b.bin")]
        [False, True, True, True]
    """
    return any(
        kind.anchor or ".." in kind.parts for kind in (PurePosixPath(name), PureWindowsPath(name))
    )


def _total_size(metadata: dict[str, Any]) -> int | None:
    size = metadata.get("total_size")
    return int(size) if isinstance(size, (int, float)) and math.isfinite(size) else None
