"""What JSON hides of a load's result is noted by its place."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from conformance.observe.value_types import observe_types


class Key(str):
    __slots__ = ()


def model(**fields: Any) -> SimpleNamespace:
    config = LlamaConfig(num_hidden_layers=1)
    vars(config).update(fields)
    return SimpleNamespace(config=config)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([1], {"config.field": "list", "config.field.int 0": "int"}),
        ((1.0,), {"config.field": "tuple", "config.field.int 0": "float"}),
        (True, {"config.field": "bool"}),
        (torch.float32, {"config.field": "torch.dtype"}),
        ("float32", {"config.field": "str"}),
        ({1: "a"}, {"config.field": "dict", "config.field.int 1": "str"}),
        (torch.Size([1]), {"config.field": "torch.Size", "config.field.int 0": "int"}),
    ],
    ids=repr,
)
def test_the_type_of_a_config_value_is_told(value: Any, told: dict[str, str]) -> None:
    left = model(field=value)

    found = observe_types(left, left)

    assert {n: t for n, t in found.items() if n.startswith("config.field")} == told


def test_the_types_of_the_loading_info_are_told() -> None:
    left = model()
    shape = torch.Size([1])
    info = OrderedDict(missing_keys={Key("a")}, mismatched_keys={("a", shape, (1,))})

    found = observe_types((left, info), left)

    assert found["(result)"] == "tuple"
    assert found["loading info"] == "collections.OrderedDict"
    assert found["missing_keys entries"].endswith("Key")
    assert found["mismatched_keys entries"] == "tuple of str, torch.Size, tuple"
    assert observe_types(left, left)["(result)"] == "a model"
