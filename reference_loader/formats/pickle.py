"""Headers and lazy tensors of `.bin` files, which torch pickles: the zip format and the old one."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch

from reference_loader.errors import BadTensorFile, UnsafePickle
from reference_loader.formats.stored import StoredTensor
from reference_loader.source.files import opened


def read_pickled_header(path: Path, weights_only: bool = True) -> dict[str, StoredTensor]:
    """What a pickled file holds, in the order of its dictionary, without its payload.

    An entry that is no tensor is described as one of no bytes, so that it is reported like any key
    that the model does not have (FMT-15).

    Raises:
        UnsafePickle: the pickle would run code, and `weights_only` forbids it (FMT-5).
        BadTensorFile: the file is damaged, or holds no dictionary of tensors (FMT-6).
    """
    content = _load(path, weights_only, "meta")
    return {key: _described(path, key, value) for key, value in content.items()}


def _described(path: Path, key: str, value: Any) -> StoredTensor:
    if not _is_plain(value):
        return StoredTensor(key, path, torch.uint8, (), 0, 0)
    return StoredTensor(key, path, value.dtype, tuple(value.shape), 0, value.nbytes)


def _is_plain(value: Any) -> TypeGuard[torch.Tensor]:
    """Whether it is a tensor whose values lie in one storage, and no sparse or nested one."""
    plain = isinstance(value, torch.Tensor) and value.layout == torch.strided
    return plain and not value.is_nested


class PickledFile:
    """A pickled file, mapped where its format allows it, from which tensors are views."""

    def __init__(self, path: Path, weights_only: bool = True) -> None:
        self._path = path
        self._tensors = _load(path, weights_only, "cpu")
        self._given: set[int] = set()

    def view(self, stored: StoredTensor) -> torch.Tensor:
        """The tensor, with a storage of its own: keys that share one in the file are no tie.

        Raises:
            BadTensorFile: it is none, or no longer what `stored` was read from (FMT-19).
        """
        tensor = self._tensors.get(stored.key)
        found = _described(self._path, stored.key, tensor)
        if not _is_plain(tensor) or found != stored:
            told = f"holds a {type(tensor).__name__} under {stored.key!r}, not what it must"
            raise BadTensorFile(f"{self._path} {told}.", "Save it again.")
        storage = tensor.untyped_storage()
        shared = storage.data_ptr() in self._given or storage.nbytes() != tensor.nbytes
        self._given.add(storage.data_ptr())
        return tensor.clone() if shared else tensor


def _load(path: Path, weights_only: bool, device: str) -> Mapping[str, Any]:
    opened(path).close()  # what cannot be opened is not damaged
    try:
        # The legacy format is one stream and cannot be mapped.
        mapped = {"mmap": True} if zipfile.is_zipfile(path) else {}
        content = torch.load(path, weights_only=weights_only, map_location=device, **mapped)
    except pickle.UnpicklingError as cause:
        raise UnsafePickle(
            f"{path} would run code when it is read, or is no pickle at all.",
            "If you trust it, pass `weights_only=False`; better, convert it to safetensors.",
        ) from cause
    except Exception as cause:  # a damaged pickle can raise nearly anything
        raise BadTensorFile(
            f"{path} is damaged: {cause!r}.", "Download or copy the file again."
        ) from cause
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise BadTensorFile(
            f"{path} holds no dictionary of tensors but a {type(content).__name__}.",
            "Save a state dict.",
        )
    return content
