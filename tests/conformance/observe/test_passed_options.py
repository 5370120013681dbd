"""What was done to an option is told by its place: type, entries, order, identity."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conformance.observe.passed_options import changed_options, option_facts


def changed(value: Any, change: Callable[[Any], Any]) -> dict[str, tuple[str, str]]:
    """What is told of an option that is changed between two looks."""
    before = option_facts({"it": value, "token": "hf_secret"})
    change(value)
    return changed_options(before, option_facts({"it": value, "token": ""}))


def assign(entry: Any) -> Callable[[Any], None]:
    return lambda value: value.update(a=entry)


@pytest.mark.parametrize(
    ("value", "change", "told"),
    [
        ({"a": 1}, assign(True), {"it['a'] passed": ("int 1", "bool True")}),
        ({"a": 0}, assign("0"), {"it['a'] passed": ("int 0", "str '0'")}),
        ({"a": (1,)}, assign([1]), {"it['a'] passed": ("tuple", "list")}),
        (
            {"a": {"b": 1}},
            assign({"b": 1}),
            {"it['a'] passed": ("dict", "another dict, which is equal")},
        ),
        (
            {"a": 1, "b": 2},
            lambda value: value.update(a=value.pop("a")),
            {"it passed": ("dict of ['a'], ['b']", "dict of ['b'], ['a']")},
        ),
        (
            [1],
            lambda value: value.append(2),
            {"it passed": ("list without [1]", "list with [1]")},
        ),
        (
            SimpleNamespace(size=1),
            lambda value: setattr(value, "note", 1),
            {"it passed": ("SimpleNamespace without .note", "SimpleNamespace with .note")},
        ),
    ],
    ids=["type", "text", "container", "exchanged", "order", "added", "attribute"],
)
def test_a_change_is_told_by_its_place(
    value: Any, change: Callable[[Any], Any], told: dict[str, tuple[str, str]]
) -> None:
    assert changed(value, lambda value: None) == {}
    assert changed(value, change) == told


def test_a_tensor_that_was_written_to_is_told() -> None:
    found = changed({"w": torch.zeros(2)}, lambda value: value["w"].fill_(1.0))

    assert list(found) == ["it['w'] passed"]
    assert "torch.float32 [2] on cpu" in found["it['w'] passed"][0]


def test_an_object_that_leads_back_to_itself_ends() -> None:
    circle = SimpleNamespace()
    circle.itself = circle

    assert changed(circle, lambda value: setattr(value, "more", 1))
