"""The digest of a tensor: the same on one core and on many, and of every element."""

from __future__ import annotations

import hashlib
from unittest.mock import patch

import pytest
import torch

from conformance.results import fingerprint as room
from conformance.results.fingerprint import fingerprint, fingerprints

DTYPES = (torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.bool, torch.int64)


def model() -> dict[str, torch.Tensor]:
    """Tensors of several sizes, two of them above a part of 1,000 bytes."""
    return {
        "none": torch.empty(0),
        "meta": torch.empty(3, device="meta"),
        "small": torch.arange(10),
        "large": torch.arange(1000, dtype=torch.float32),
        "transposed": torch.arange(600, dtype=torch.float32).view(20, 30).T,
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tensor_of_one_part_has_the_digest_of_its_bytes(dtype: torch.dtype) -> None:
    tensor = torch.arange(40).to(dtype)
    held = tensor.view(torch.uint8).numpy().tobytes()
    assert fingerprint(tensor) == hashlib.sha256(held).hexdigest()[:16]


def test_many_have_the_digests_of_each() -> None:
    with patch.object(room, "PART", 1000):
        assert fingerprints(model()) == {n: fingerprint(t) for n, t in model().items()}
    assert fingerprints(model()) == {n: fingerprint(t) for n, t in model().items()}
    assert fingerprints(model())["meta"] == "meta"


@pytest.mark.parametrize("place", [0, 249, 250, 251, 999])
def test_every_element_counts_in_every_part(place: int) -> None:
    changed = model()
    changed["large"][place] += 1
    with patch.object(room, "PART", 1000):
        before, after = fingerprints(model()), fingerprints(changed)
    assert {n for n in before if before[n] != after[n]} == {"large"}


def test_the_order_of_parts_counts() -> None:
    halves = torch.arange(500, dtype=torch.float32).split(250)
    with patch.object(room, "PART", 1000):
        assert fingerprint(torch.cat(halves)) != fingerprint(torch.cat(halves[::-1]))
