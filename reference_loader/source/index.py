"""The shard index, read and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from reference_loader.errors import BadIndex, ShardNotFound, UnsafePath
from reference_loader.source.files import is_file, read_object, without_duplicates

SAFE = ".safetensors"


@dataclass(frozen=True)
class ShardIndex:
    """Which shard holds which key.

    Attributes:
        path: the index file.
        shard_of: checkpoint key to the path of the shard that holds it.
        total_size: bytes of all tensors as the index claims, or None.
    """

    path: Path
    shard_of: Mapping[str, Path]
    total_size: int | None

    @property
    def shards(self) -> tuple[Path, ...]:
        """Every shard once, by name."""
        return tuple(sorted(set(self.shard_of.values())))


def read_index(path: Path) -> ShardIndex:
    """Read `*.index.json`, whose shards must be there.

    Raises:
        BadIndex, UnsafePath: see `parse_index`.
        BadIndex: a shard of safetensors is of another kind (IDX-13).
        ShardNotFound: a shard is not there (IDX-6).
    """
    index = parse_index(path)
    for shard in index.shards:
        if not is_file(shard):
            raise ShardNotFound(
                f"The index {path} names the shard {shard.name!r}, but {shard} is no file.",
                "Download or copy the shard again.",
            )
        if SAFE in path.name and shard.suffix != SAFE:
            raise BadIndex(f"The index {path} names {shard.name!r}, which is no safetensors.")
    return index


def parse_index(path: Path) -> ShardIndex:
    """Read `*.index.json`; its shards may be elsewhere yet.

    Raises:
        BadIndex: no JSON object, a key twice, or without a usable `metadata` or `weight_map`
            (IDX-4, IDX-5, IDX-12).
        UnsafePath: a shard's name leads out of the folder (IDX-9).
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
        raise BadIndex(f"The index {path} is not usable: {cause}.", "Download it again.") from cause


def _table(path: Path, content: dict[str, Any], name: str) -> dict[str, Any]:
    table = content.get(name)
    if not isinstance(table, dict) or (name == "weight_map" and not table):
        raise BadIndex(
            f"The index {path} has no usable {name!r}.",
            "An index holds the objects 'metadata' and 'weight_map'.",
        )
    return table


def _shard(path: Path, key: str, name: object) -> Path:
    if not isinstance(name, str) or not name:
        raise BadIndex(f"The index {path} gives no file name for the key {key!r}.")
    if leads_outside(name):
        raise UnsafePath(
            f"The index {path} puts {key!r} in {name!r}, which leads out of the folder.",
            "Do not trust this checkpoint.",
        )
    return path.parent / name


def leads_outside(name: str) -> bool:
    """Whether a file's name leads out of the folder it is relative to, on any system (IDX-9)."""
    return any(
        kind.anchor or ".." in kind.parts for kind in (PurePosixPath(name), PureWindowsPath(name))
    )


def _total_size(metadata: dict[str, Any]) -> int | None:
    size = metadata.get("total_size")
    return int(size) if isinstance(size, (int, float)) and math.isfinite(size) else None
