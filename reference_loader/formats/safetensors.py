"""Headers and lazy tensors of safetensors files.

The format: eight bytes, little-endian, the length of the header; the header, JSON; the payload.
Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import hashlib
import os
import weakref
from pathlib import Path
from typing import Any, BinaryIO

import torch

from reference_loader.errors import BadTensorFile
from reference_loader.formats.stored import Format, StoredTensor
from reference_loader.source.files import LONGEST_TABLE, opened, parse_object, without_duplicates

# What torch counts with: 64 bits, signed.
LARGEST_COUNT = 2**63 - 1

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "F32": torch.float32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
    "C64": torch.complex64,
}


def read_header(path: Path) -> dict[str, StoredTensor]:
    """What a safetensors file holds, in the order of its payload; no payload is read.

    Raises:
        BadTensorFile: the header is damaged or is not that of this payload (FMT-1, FMT-2).
        Unreadable: see `files.opened`.
    """
    with opened(path) as file:
        header, size, seal = _header_of(path, file)
    try:
        entries = parse_object(header, object_pairs_hook=without_duplicates)
    except ValueError as cause:
        raise _damaged(path, f"its header is malformed: {cause}") from cause
    entries.pop("__metadata__", None)
    base = 8 + len(header)
    stored = [_stored(path, key, entry, base, seal) for key, entry in entries.items()]
    stored.sort(key=lambda tensor: (tensor.start, tensor.stop))
    end = base
    for tensor in stored:
        if tensor.start != end:
            raise _damaged(path, f"its header entry {tensor.key!r} overlaps or leaves a gap")
        end = tensor.stop
    if end != size:
        kind = "truncated" if size < end else "too long"
        raise _damaged(path, f"it is {kind}: {size} bytes, its header describes {end}")
    return {tensor.key: tensor for tensor in stored}


def _header_of(path: Path, file: BinaryIO) -> tuple[bytes, int, bytes]:
    """The header, the size of the whole file, and a digest of both."""
    size, prefix = os.fstat(file.fileno()).st_size, file.read(8)
    if len(prefix) < 8:
        raise _damaged(path, f"it is {size} bytes long, too short for a header")
    length = int.from_bytes(prefix, "little")
    if length > min(size - 8, LONGEST_TABLE):
        raise _damaged(path, f"its header claims {length} bytes, the file has {size}")
    header = file.read(length)
    return header, size, hashlib.blake2b(header, digest_size=16, key=size.to_bytes(8)).digest()


class MappedFile:
    """A file mapped copy-on-write, from which tensors are views.

    A view keeps the mapping alive; each has a storage of its own, so a tensor that is saved or
    shared drags no neighbour along.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with opened(path) as file:
            _, size, self._seal = _header_of(path, file)
            #: The file itself, whatever is put in its place; open as long as this object is.
            self.descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.descriptor)
        self._storage = torch.UntypedStorage.from_file(str(path), shared=False, nbytes=size)
        if not os.path.samestat(os.fstat(self.descriptor), path.stat()):
            raise _damaged(path, "another file replaced it while it was being opened")

    def offset(self, tensor: torch.Tensor) -> int | None:
        """Where in the file the memory of a tensor begins; None for memory of its own."""
        offset = tensor.data_ptr() - self._storage.data_ptr()
        return offset if 0 <= offset < self._storage.nbytes() else None

    def view(self, stored: StoredTensor) -> torch.Tensor:
        """The tensor, unread: its pages come from the disk when they are touched.

        Raises:
            BadTensorFile: the file is no longer the one that `stored` was read from (FMT-19).
        """
        if self._seal != stored.seal:
            raise _damaged(self.path, f"another file replaced the one with {stored.key!r}")
        payload: Any = self._storage[stored.start : stored.stop]
        if not stored.viewable:
            payload = payload.clone()  # kernels may assume an aligned first element
        tensor = torch.empty(0, dtype=stored.dtype, device="cpu")
        tensor.set_(payload, 0, stored.shape)  # type: ignore[call-overload]  # stride is optional
        return tensor


def _stored(path: Path, key: str, entry: Any, base: int, seal: bytes) -> StoredTensor:
    try:
        dtype = DTYPES[entry["dtype"]]
        shape = _counts(entry["shape"])
        start, stop = _counts(entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as cause:
        raise _damaged(path, f"its header entry {key!r} is malformed ({cause!r})") from cause
    if stop - start != _elements(shape) * dtype.itemsize:
        raise _damaged(
            path, f"its header entry {key!r} has {stop - start} bytes for {dtype} {list(shape)}"
        )
    start, stop = base + start, base + stop
    viewable = start % dtype.itemsize == 0
    return StoredTensor(key, path, dtype, shape, start, stop, Format.SAFETENSORS, viewable, seal)


def _counts(numbers: Any) -> tuple[int, ...]:
    if not isinstance(numbers, list):
        raise ValueError(f"{numbers!r} is not a list")
    for number in numbers:
        if type(number) is not int or not 0 <= number <= LARGEST_COUNT:
            raise ValueError("it contains something other than a non-negative 64-bit integer")
    return tuple(numbers)


def _elements(shape: tuple[int, ...]) -> int:
    """The product, stopped once it exceeds any file: a header may hold many huge numbers."""
    elements = 0 if 0 in shape else 1
    for size in shape:
        elements *= size
        if elements > LARGEST_COUNT:
            break
    return elements


def _damaged(path: Path, what: str) -> BadTensorFile:
    return BadTensorFile(f"{path} is damaged: {what}.", "Download or copy the file again.")
