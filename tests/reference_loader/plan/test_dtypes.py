"""The dtype of the model and of each tensor. DTY-1 to DTY-9."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from reference_loader.errors import BadDtype
from reference_loader.formats.stored import Format, StoredTensor
from reference_loader.plan.dtypes import model_dtype, parse, tensor_dtype


def stored(*dtypes: torch.dtype) -> list[StoredTensor]:
    return [
        StoredTensor(f"k{i}", Path("f"), d, (), 0, d.itemsize, Format.PICKLE)
        for i, d in enumerate(dtypes)
    ]


@pytest.mark.parametrize("requested", [None, "auto"])
def test_auto_is_the_declaration_then_the_first_floating_tensor(requested: Any) -> None:
    """DTY-1, DTY-2."""
    tensors = stored(torch.int64, torch.bfloat16, torch.float16)
    declared = model_dtype(requested, "float16", tensors)
    assert (declared.dtype, "config" in declared.why) == (torch.float16, True)
    first = model_dtype(requested, None, tensors)
    assert (first.dtype, "'k1'" in first.why) == (torch.bfloat16, True)


def test_without_any_floating_tensor_the_default_of_the_process() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        assert model_dtype("auto", None, stored(torch.int8)).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64", "half", "float"])
def test_a_dtype_and_its_name_are_one(name: str) -> None:
    """DTY-3: and either beats what is declared."""
    dtype = getattr(torch, name)
    assert parse(name) == parse(dtype) == dtype
    assert model_dtype(name, "float8", []) == model_dtype(dtype, None, [])


@pytest.mark.parametrize("value", ["floaty", "", "nn", "Tensor", 16, float, {}, ["half"]], ids=repr)
def test_what_is_no_dtype(value: Any) -> None:
    """DTY-5: the error repeats it."""
    with pytest.raises(BadDtype) as raised:
        model_dtype(value, None, [])
    assert repr(value) in str(raised.value)


@pytest.mark.parametrize("dtype", ["int8", torch.int64, torch.bool, torch.complex64], ids=str)
def test_what_is_not_floating(dtype: Any) -> None:
    """DTY-6."""
    with pytest.raises(ValueError, match="floating"):
        parse(dtype)


@pytest.mark.parametrize(
    ("pattern", "name", "kept"),
    [
        ("norm", "model.norm.weight", True),
        ("norm", "norm", True),
        ("norm", "model.post_norm.weight", False),
        ("norm", "model.norms.weight", False),
        ("layers.*.norm", "model.layers.12.norm.weight", True),
        ("layers.*.norm", "model.layers.x.norm.weight", False),
        ("layers.*.norm", "model.layers.norm.weight", False),
        ("a.b", "aXb.weight", False),
    ],
)
def test_kept_modules_are_named_by_whole_parts(pattern: str, name: str, kept: bool) -> None:
    """DTY-9."""
    expected = torch.float32 if kept else torch.bfloat16
    assert tensor_dtype(name, torch.bfloat16, [pattern]) == expected


def test_a_tensor_keeps_its_own_dtype() -> None:
    """DTY-8: integers are never made floats."""
    assert tensor_dtype("norm.steps", torch.int64, ["norm"]) == torch.int64
    assert tensor_dtype("inv_freq", torch.float32, []) == torch.float32
