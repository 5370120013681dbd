"""Which functions of torch draw random numbers, and from which generator (STA-1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import get_overridable_functions

from reference_loader.model.draws import DrawsApart, _takes_generator


def _functions() -> list[Callable[..., Any]]:
    """Every function that a constructor may call."""
    return [each for found in get_overridable_functions().values() for each in found]


def test_of_every_function_it_is_known_whether_it_draws() -> None:
    """Some are in Python and wrap one that is not, such as `Tensor.__pow__`."""
    found = {each.__name__: _takes_generator(each) for each in _functions()}

    assert {found[name] for name in ("multinomial", "normal_", "uniform_")} == {True}
    assert {found[name] for name in ("dropout", "lstm")} == {False}
    assert {found[name] for name in ("pow", "add", "stack")} == {None}


def test_a_power_is_one_within() -> None:
    before = torch.get_rng_state()
    with DrawsApart():
        assert (torch.full((2,), 3.0) ** 2).tolist() == [9.0, 9.0]
        drawn = torch.rand(3)

    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn, torch.rand(3)), "the numbers that would be drawn"
