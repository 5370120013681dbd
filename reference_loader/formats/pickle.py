"""Headers and lazy tensors of `.bin` files, which torch pickles: the zip format and the old one."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch

from reference_loader.errors import BadTensorFile, UnsafePickle
from reference_loader.formats.stored import Format, StoredTensor
from reference_loader.source.files import opened


def read_pickled_header(path: Path, weights_only: bool = True) -> dict[str, StoredTensor]:
    """What a pickled file holds, in the order of its dictionary, without its payload.

    An entry that is not a plain tensor is described as one of no bytes, so that it is reported
    like any key that the model does not have (FMT-15).

    Raises:
        UnsafePickle: the pickle would execute code, and `weights_only` forbids it (FMT-5).
        BadTensorFile: the file is damaged, or does not hold a state dict (FMT-6).
    """
    content, mapped = _load(path, weights_only, only_header=True)
    alone = _alone(content) if mapped else set()
    return {key: _described(path, key, value, key in alone) for key, value in content.items()}


def _described(path: Path, key: str, value: Any, alone: bool) -> StoredTensor:
    if not _is_plain(value):
        return StoredTensor(key, path, torch.uint8, (), 0, 0, Format.PICKLE, viewable=False)
    described = key, path, value.dtype, tuple(value.shape), 0, value.nbytes, Format.PICKLE
    return StoredTensor(*described, viewable=alone and value.is_contiguous())


def _is_plain(value: Any) -> TypeGuard[torch.Tensor]:
    """Whether it is a tensor whose values lie in one storage: not a sparse or nested one."""
    plain = isinstance(value, torch.Tensor) and value.layout == torch.strided
    return plain and not value.is_nested


def _alone(content: Mapping[str, Any]) -> set[str]:
    """The keys of tensors that are all of a storage, and the first key to have it."""
    alone, seen = set(), set()
    for key, tensor in content.items():
        if _is_plain(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in seen and storage.nbytes() == tensor.nbytes:
                alone.add(key)
            seen.add(storage.data_ptr())
    return alone


class PickledFile:
    """A pickled file, mapped where its format allows it, from which tensors are views."""

    def __init__(self, path: Path, weights_only: bool = True) -> None:
        self._path = path
        self._tensors, self._mapped = _load(path, weights_only)
        self._alone = _alone(self._tensors)

    def view(self, stored: StoredTensor) -> torch.Tensor:
        """The tensor, with a storage of its own: keys that share one in the file are not tied.

        Raises:
            BadTensorFile: it is not a tensor, or no longer what `stored` was read from (FMT-19).
        """
        tensor, alone = self._tensors.get(stored.key), stored.key in self._alone
        found = _described(self._path, stored.key, tensor, self._mapped and alone)
        if not _is_plain(tensor) or found != stored:
            what = f"a {type(tensor).__name__} under {stored.key!r}, not the tensor planned"
            raise BadTensorFile(f"{self._path} holds {what}.", "Save the file again.")
        return tensor if alone else tensor.clone()


def _load(
    path: Path, weights_only: bool, *, only_header: bool = False
) -> tuple[Mapping[str, Any], bool]:
    """The content of the file, and whether it is mapped.

    The legacy format is one stream, which cannot be mapped: with `only_header` its tensors are on
    meta, and no value is read.
    """
    opened(path).close()  # what cannot be opened is not damaged
    try:
        mapped = zipfile.is_zipfile(path)
        device = "meta" if only_header and not mapped else "cpu"
        content = torch.load(
            path, weights_only=weights_only, map_location=device, mmap=mapped or None
        )
    except pickle.UnpicklingError as cause:
        raise UnsafePickle(
            f"{path} would execute code when it is unpickled, or is not a pickle.",
            "If you trust the file, pass `weights_only=False`; better, convert it to safetensors.",
        ) from cause
    except Exception as cause:  # a damaged pickle can raise nearly anything
        raise BadTensorFile(
            f"{path} is damaged: {cause!r}.", "Download or copy the file again."
        ) from cause
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise BadTensorFile(
            f"{path} holds a {type(content).__name__}, not a state dict.",
            "Save a state dict.",
        )
    return content, mapped
