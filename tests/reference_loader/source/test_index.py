"""The shard index. IDX-3 to IDX-6, IDX-9."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conformance_fixtures.files import write_index, write_safetensors
from reference_loader.errors import BadIndex, LoadError, ShardNotFound, UnsafePath
from reference_loader.plan.inventory import take_inventory
from reference_loader.source.checkpoint import of_file
from reference_loader.source.index import read_index

quick = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
paths = st.lists(
    st.sampled_from(["..", ".", "/", "\\", "a", "b.safetensors", "\0", "C:", "~", " "]),
    max_size=4,
).map("".join)


def written(folder: Path, content: Any) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def reads_or_refuses(path: Path) -> None:
    try:
        read_index(path)
    except LoadError as error:
        assert str(path) in str(error)


@quick
@given(content=st.binary(max_size=60))
def test_arbitrary_bytes(tmp_path: Path, content: bytes) -> None:
    """IDX-4."""
    reads_or_refuses(written(tmp_path, content))


@quick
@given(content=values)
def test_arbitrary_json(tmp_path: Path, content: Any) -> None:
    """IDX-5."""
    reads_or_refuses(written(tmp_path, content))


@quick
@given(metadata=values, total=values, weight_map=values)
def test_arbitrary_tables(tmp_path: Path, metadata: Any, total: Any, weight_map: Any) -> None:
    """IDX-5."""
    reads_or_refuses(written(tmp_path, {"metadata": metadata, "weight_map": weight_map}))
    shard = tmp_path / "s.safetensors"
    shard.touch()
    good = {"metadata": {"total_size": total}, "weight_map": {"k": "s.safetensors"}}
    assert read_index(written(tmp_path, good)).shards == (shard,)


@quick
@given(name=paths)
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    """IDX-9: whatever is accepted lies inside."""
    inner = tmp_path / "inner"
    inner.mkdir(exist_ok=True)
    (inner / "b.safetensors").touch()
    (tmp_path / "b.safetensors").touch()
    path = written(inner, {"metadata": {}, "weight_map": {"key": name}})
    try:
        shards = read_index(path).shards
    except LoadError as error:
        assert str(path) in str(error)
    else:
        assert all(inner in shard.resolve().parents for shard in shards)


@pytest.mark.parametrize(
    "name", ["../b", "/etc/passwd", "a/../../b", "..\\b", "C:\\b", "C:b", "\\\\host\\b", "a/.."]
)
def test_a_name_outside_is_unsafe_and_named(tmp_path: Path, name: str) -> None:
    """IDX-9: of either kind of system, wherever it is read."""
    path = written(tmp_path, {"metadata": {}, "weight_map": {"the.key": name}})
    with pytest.raises(UnsafePath) as raised:
        read_index(path)
    assert str(path) in str(raised.value)
    assert "the.key" in str(raised.value)
    assert repr(name) in str(raised.value)


@pytest.mark.parametrize("size", [float("inf"), float("-inf"), float("nan")], ids=str)
def test_a_total_size_that_is_no_number(tmp_path: Path, size: float) -> None:
    """IDX-5: nothing rests on it, so it is read as not given, or refused as ours."""
    (tmp_path / "s").touch()
    reads_or_refuses(
        written(tmp_path, {"metadata": {"total_size": size}, "weight_map": {"k": "s"}})
    )


def test_a_name_longer_than_file_names_can_be(tmp_path: Path) -> None:
    """IDX-6."""
    path = written(tmp_path, {"metadata": {}, "weight_map": {"k": "x" * 300}})
    with pytest.raises(ShardNotFound):
        read_index(path)


@pytest.mark.parametrize("name", ["absent", ".", "folder", "x\0"])
def test_a_shard_that_is_no_file(tmp_path: Path, name: str) -> None:
    """IDX-6."""
    (tmp_path / "folder").mkdir()
    path = written(tmp_path, {"metadata": {}, "weight_map": {"k": name}})
    with pytest.raises(ShardNotFound, match="index"):
        read_index(path)


@pytest.mark.parametrize("name", [None, 3, "", [], {}], ids=repr)
def test_a_shard_without_a_name(tmp_path: Path, name: Any) -> None:
    """IDX-5: with the key."""
    with pytest.raises(BadIndex, match=r"the\.key"):
        read_index(written(tmp_path, {"metadata": {}, "weight_map": {"the.key": name}}))


@pytest.mark.parametrize("table", ["metadata", "weight_map"])
@pytest.mark.parametrize("value", [None, [], 1, "absent"], ids=repr)
def test_a_table_that_is_none(tmp_path: Path, table: str, value: Any) -> None:
    """IDX-5: with the table."""
    content: dict[str, Any] = {"metadata": {}, "weight_map": {"k": "s"}} | {table: value}
    if value == "absent":
        del content[table]
    with pytest.raises(BadIndex, match=table):
        read_index(written(tmp_path, content))


def test_shards_once_and_in_order(tmp_path: Path) -> None:
    """IDX-1, IDX-3: by name, however the index lists them; subfolders are allowed."""
    (tmp_path / "sub").mkdir()
    a, b, c = (f"{name}.safetensors" for name in ("a", "b", "sub/c"))
    for name in (a, b, c):
        (tmp_path / name).touch()
    listed = {"z": b, "y": a, "x": c, "w": b}
    for weight_map in (listed, dict(reversed(listed.items()))):
        content = {"metadata": {"total_size": 7.0}, "weight_map": weight_map}
        index = read_index(written(tmp_path, content))
        assert index.shards == (tmp_path / a, tmp_path / b, tmp_path / c)
        assert index.shard_of["z"] == tmp_path / b
        assert index.total_size == 7


def test_a_shard_of_another_kind_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    """IDX-13."""
    (tmp_path / "shard.bin").touch()
    path = written(tmp_path, {"metadata": {}, "weight_map": {"k": "shard.bin"}})
    with pytest.raises(BadIndex, match=r"shard\.bin"):
        read_index(path)


def test_a_key_twice_is_refused_by_name(tmp_path: Path) -> None:
    """IDX-12."""
    with pytest.raises(BadIndex, match="'k' appears twice"):
        read_index(written(tmp_path, b'{"metadata": {}, "weight_map": {"k": "a", "k": "b"}}'))


def test_nesting_past_all_bounds(tmp_path: Path) -> None:
    """IDX-4."""
    with pytest.raises(BadIndex):
        read_index(written(tmp_path, b'{"metadata":' + b"[" * 100_000))


def test_a_thousand_shards(tmp_path: Path) -> None:
    """IDX-1: each is read once, and no file stays open."""
    names = [f"model-{n:05}-of-01000.safetensors" for n in range(1, 1001)]
    for n, name in enumerate(names):
        write_safetensors(tmp_path / name, {f"layers.{n}.weight": torch.full((2,), float(n))})
    index = tmp_path / "model.safetensors.index.json"
    write_index(index, {f"layers.{n}.weight": name for n, name in enumerate(names)}, 8000)
    opened = len(list(Path("/proc/self/fd").iterdir()))

    inventory = take_inventory(of_file(index, "the only one"))

    assert len(list(Path("/proc/self/fd").iterdir())) == opened
    assert len(inventory.stored) == 1000
    assert [inventory.stored[f"layers.{n}.weight"].file.name for n in range(1000)] == names
    assert not inventory.duplicates
    assert not inventory.phantom | inventory.unlisted


def test_shards_that_were_renamed_are_told_with_what_lies_there(tmp_path: Path) -> None:
    named = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    content = {"metadata": {}, "weight_map": {str(n): name for n, name in enumerate(named)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(content))
    for name in (named[0], "model-00002-of-00002.safetensors"):
        (tmp_path / name).touch()

    with pytest.raises(ShardNotFound) as caught:
        read_index(tmp_path / "model.safetensors.index.json")

    assert f"2 shards that do not exist: {named[1]!r}, {named[2]!r}." in str(caught.value)
    assert "It does not name model-00002-of-00002.safetensors" in str(caught.value)
