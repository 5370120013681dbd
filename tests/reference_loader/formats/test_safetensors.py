"""Headers of safetensors, and the views of their payload. FMT-1, FMT-2, FMT-3, MAP-1."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conformance_fixtures.files import SAFETENSORS_DTYPES, write_safetensors
from reference_loader.errors import BadTensorFile
from reference_loader.formats.safetensors import MappedFile, read_header
from reference_loader.source.files import LONGEST_TABLE

quick = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

DTYPES = sorted(SAFETENSORS_DTYPES, key=str)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def written(path: Path, header: bytes, payload: bytes = b"") -> Path:
    path.write_bytes(len(header).to_bytes(8, "little") + header + payload)
    return path


def entry(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def refuses(path: Path) -> str:
    with pytest.raises(BadTensorFile) as raised:
        read_header(path)
    assert str(path) in str(raised.value)
    return str(raised.value)


def refuses_or_reads(path: Path) -> None:
    started = time.perf_counter()
    try:
        for stored in read_header(path).values():
            assert 8 <= stored.start <= stored.stop <= path.stat().st_size
    except BadTensorFile as error:
        assert str(path) in str(error)
    assert time.perf_counter() - started < 2


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    held = {}
    for key in draw(st.lists(st.text(max_size=8), max_size=5, unique=True)):
        if key == "__metadata__":
            continue
        dtype = draw(st.sampled_from(DTYPES))
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
        size = torch.Size(shape).numel() * dtype.itemsize
        raw = torch.randint(0, 2 if dtype == torch.bool else 256, (size,), generator=generator)
        held[key] = raw.to(torch.uint8).view(dtype).reshape(shape)
    return held


@quick
@given(held=tensors(), metadata=st.none() | st.just({"format": "pt"}))
def test_what_was_written_is_read(tmp_path: Path, held: Any, metadata: Any) -> None:
    """MAP-1, FMT-3: bit for bit, every dtype, scalars and empty tensors, any name."""
    path = tmp_path / "model.safetensors"
    write_safetensors(path, held, metadata)
    header = read_header(path)
    assert header.keys() == held.keys()
    mapped = MappedFile(path)
    for key, tensor in held.items():
        view = mapped.view(header[key])
        assert (view.dtype, view.shape, header[key].shape) == (
            tensor.dtype,
            tensor.shape,
            tuple(tensor.shape),
        )
        assert header[key].nbytes == tensor.numel() * tensor.element_size()
        assert torch.equal(bits(view), bits(tensor))


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (2, 3)], ids=str)
def test_every_dtype_and_shape(tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    count = torch.Size(shape).numel() * dtype.itemsize
    tensor = (torch.arange(count) % 2).to(torch.uint8).view(dtype).reshape(shape)
    path = tmp_path / "f"
    write_safetensors(path, {"first": torch.zeros(8), "t": tensor})
    view = MappedFile(path).view(read_header(path)["t"])
    assert (view.dtype, view.shape) == (dtype, shape)
    assert torch.equal(bits(view), bits(tensor))


@pytest.mark.parametrize("padding", range(8))
def test_a_header_of_any_length(tmp_path: Path, padding: int) -> None:
    """The format asks for no alignment; a misaligned tensor is copied, its values are the same."""
    header = json.dumps({"a": entry("F64", [2], [0, 16])}).encode() + b" " * padding
    values = torch.tensor([1.5, -2.5], dtype=torch.float64)
    path = written(tmp_path / "f", header, bytes(bits(values).tolist()))
    view = MappedFile(path).view(read_header(path)["a"])
    assert torch.equal(view, values)
    assert view.data_ptr() % 8 == 0


def test_the_order_is_that_of_the_payload(tmp_path: Path) -> None:
    header = {"b": entry(offsets=[4, 8]), "a": entry(offsets=[0, 4])}
    assert list(read_header(written(tmp_path / "f", json.dumps(header).encode(), bytes(8)))) == [
        "a",
        "b",
    ]


@quick
@given(content=st.binary(max_size=200))
def test_arbitrary_bytes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f").write_bytes(content)
    refuses_or_reads(tmp_path / "f")


@quick
@given(header=st.binary(max_size=100) | json_values.map(lambda v: json.dumps(v).encode()))
def test_arbitrary_headers(tmp_path: Path, header: bytes) -> None:
    refuses_or_reads(written(tmp_path / "f", header))


@quick
@given(fields=st.tuples(json_values, json_values, json_values), which=st.integers(1, 7))
def test_arbitrary_entries(tmp_path: Path, fields: Any, which: int) -> None:
    good = ("F32", [1], [0, 4])
    mixed = [fields[i] if which >> i & 1 else good[i] for i in range(3)]
    header = json.dumps({"a": entry(*mixed)}).encode()
    refuses_or_reads(written(tmp_path / "f", header, bytes(4)))


@quick
@given(data=st.data())
def test_mutated_headers(tmp_path: Path, data: st.DataObject) -> None:
    """One byte of a good file changed, or its end cut off."""
    path = tmp_path / "f"
    write_safetensors(path, {"a": torch.ones(2), "b": torch.ones(3, dtype=torch.float16)})
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[position] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        refuses_or_reads(path)
    else:
        path.write_bytes(content[:position])
        refuses(path)


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ({"a": entry(offsets=[0, 4]), "b": entry(offsets=[2, 6])}, "overlap"),
        ({"a": entry(offsets=[0, 4]), "b": entry(offsets=[0, 4])}, "overlap"),
        ({"a": entry(offsets=[2, 6])}, "gap"),
        ({"a": entry(offsets=[4, 0])}, "-4 bytes"),
        ({"a": entry(offsets=[0, 4, 8])}, "'a'"),
        ({"a": entry(shape=[2])}, "4 bytes"),
        ({"a": entry(shape=[-1])}, "'a'"),
        ({"a": entry(shape=[True])}, "'a'"),
        ({"a": entry(shape=[1.0])}, "'a'"),
        ({"a": entry(dtype="F5")}, "F5"),
        ({"a": entry(dtype=["F32"])}, "'a'"),
        ({"a": entry(offsets=[0, 4]), "b": entry(offsets=[4, 8])}, "truncated"),
        ({}, "too long"),
        ({"a": {"dtype": "F32"}}, "'a'"),
        ({"a": []}, "'a'"),
    ],
)
def test_a_header_that_does_not_describe_its_payload(
    tmp_path: Path, entries: Any, why: str
) -> None:
    """FMT-1: said with the file, the key and what is wrong."""
    assert why in refuses(written(tmp_path / "f", json.dumps(entries).encode(), bytes(6)))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"null",
        b'{"a":',
        b"\xff\xfe",
        b'{"a":1,"a":1}',
        b"[" * 5000,
        b'{"a":' * 5000,
        b"9" * 5000,
    ],
    ids=lambda header: header[:12].decode("latin-1"),
)
def test_a_header_that_is_no_table(tmp_path: Path, header: bytes) -> None:
    """FMT-2: truncated, nested past all bounds, a name twice."""
    refuses(written(tmp_path / "f", header))


@pytest.mark.parametrize("length", [1, LONGEST_TABLE + 1, 2**63, 2**64 - 1])
def test_a_header_length_beyond_the_file_allocates_nothing(tmp_path: Path, length: int) -> None:
    """FMT-2."""
    path = tmp_path / "f"
    path.write_bytes(length.to_bytes(8, "little"))
    assert str(length) in refuses(path)


def test_a_header_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with path.open("wb") as file:
        file.write((LONGEST_TABLE + 1).to_bytes(8, "little"))
        file.truncate(LONGEST_TABLE + 100)  # sparse
    started = time.perf_counter()
    refuses(path)
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize("shape", ["", {}], ids=repr)
def test_a_shape_is_a_list(tmp_path: Path, shape: Any) -> None:
    header = json.dumps({"a": entry(shape=shape)}).encode()
    assert "'a'" in refuses(written(tmp_path / "f", header, bytes(4)))


def test_a_name_twice_among_many_is_found_at_once(tmp_path: Path) -> None:
    names = [f'"{i}":0' for i in range(10_000)]
    header = ("{" + ",".join([*names, '"z":0', '"z":0']) + "}").encode()
    started = time.perf_counter()
    assert "'z'" in refuses(written(tmp_path / "f", header))
    assert time.perf_counter() - started < 0.3


def test_absurd_dimensions_are_refused_at_once(tmp_path: Path) -> None:
    header = json.dumps({"a": entry(shape=[10**4000] * 200)}).encode()
    started = time.perf_counter()
    assert "'a'" in refuses(written(tmp_path / "f", header, bytes(4)))
    assert time.perf_counter() - started < 0.5


def test_a_dimension_that_torch_cannot_hold(tmp_path: Path) -> None:
    """Of no elements, so the bytes agree; it is refused with the header or never viewed."""
    header = json.dumps({"a": entry(shape=[0, 2**70], offsets=[0, 0])}).encode()
    refuses(written(tmp_path / "f", header))


def test_views_share_the_mapping_and_nothing_else(tmp_path: Path) -> None:
    """Changing a view changes neither the file nor its neighbour; its storage is its own."""
    path = tmp_path / "f"
    write_safetensors(path, {"a": torch.ones(4), "b": torch.full((4,), 2.0)})
    before = path.read_bytes()
    header, mapped = read_header(path), MappedFile(path)
    a, b = mapped.view(header["a"]), mapped.view(header["b"])
    del mapped
    assert a.untyped_storage().nbytes() == b.untyped_storage().nbytes() == 16
    a.fill_(7.0)
    assert b.tolist() == [2.0] * 4
    assert path.read_bytes() == before
