"""The dtype of the model and of each tensor: pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from reference_loader.errors import BadDtype
from reference_loader.formats.stored import StoredTensor

# What torch takes as a default dtype.
BUILDABLE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class ModelDtype(NamedTuple):
    """The dtype a model is built in, and why."""

    dtype: torch.dtype
    why: str


def model_dtype(requested: Any, declared: Any, stored: Iterable[StoredTensor]) -> ModelDtype:
    """The dtype the model is built in (DTY-1 to DTY-6).

    Args:
        requested: "auto" or None, a `torch.dtype`, or its name.
        declared: what the config declares: a `torch.dtype`, its name, or None.
        stored: the checkpoint's tensors, in the order in which "auto" looks at them.

    Raises:
        BadDtype: no dtype of that name, or not a floating-point one.
    """
    if requested not in (None, "auto"):
        return ModelDtype(parse(requested), "asked for")
    if declared is not None:
        return ModelDtype(parse(declared), "declared by the config")
    for tensor in stored:
        if tensor.dtype.is_floating_point:
            return ModelDtype(
                parse(tensor.dtype), f"that of {tensor.key!r}, the first floating tensor"
            )
    return ModelDtype(torch.get_default_dtype(), "the process's default")


def parse(value: Any) -> torch.dtype:
    """A floating-point `torch.dtype` from itself or its name."""
    dtype = getattr(torch, value, None) if isinstance(value, str) else value
    if not isinstance(dtype, torch.dtype):
        raise BadDtype(
            f"dtype={value!r} is not a dtype.",
            "Give 'auto', a torch.dtype such as torch.bfloat16, or its name.",
        )
    if not dtype.is_floating_point:
        raise BadDtype(
            f"dtype={value!r} is not a floating-point dtype.",
            "Give a floating-point dtype such as torch.bfloat16.",
        )
    if dtype not in BUILDABLE:
        raise BadDtype(
            f"torch cannot build a model in dtype={value!r}.",
            f"Give one of {', '.join(map(str, BUILDABLE))}.",
        )
    return dtype


def tensor_dtype(name: str, own: torch.dtype, kept: Iterable[str]) -> torch.dtype:
    """The dtype of one tensor of the model (DTY-7, DTY-8, DTY-9).

    Args:
        name: its name in the model.
        own: its dtype in the empty model.
        kept: names of modules kept in float32; a name part or a dotted path, "*" for any number.
    """
    if own.is_floating_point and any(_names_module(pattern, name) for pattern in kept):
        return torch.float32
    return own


def _names_module(pattern: str, name: str) -> bool:
    expression = re.escape(pattern).replace(r"\*", r"\d+")
    return re.search(rf"(^|\.){expression}(\.|$)", name) is not None
