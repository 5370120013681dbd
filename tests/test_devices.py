"""The one place this loader has, and no silence about any other."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from reference_loader.devices import resolve
from reference_loader.errors import UnsupportedOption


@pytest.mark.parametrize("place", [None, "cpu", torch.device("cpu"), {"": "cpu"}, {}], ids=repr)
def test_the_cpu(place: Any) -> None:
    assert resolve(place) == torch.device("cpu")


@pytest.mark.parametrize(
    "place",
    [
        "auto",
        "balanced",
        "sequential",
        "cuda",
        "meta",
        0,
        torch.device("cuda", 1),
        {"": 0},
        {"model": "cpu", "lm_head": "disk"},
    ],
    ids=repr,
)
def test_any_other_place_is_refused(place: Any) -> None:
    with pytest.raises(UnsupportedOption, match="device_map"):
        resolve(place)
