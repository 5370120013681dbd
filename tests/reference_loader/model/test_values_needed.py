"""A constructor that needs the values of its weights is given them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import orthogonal
from transformers import PretrainedConfig, PreTrainedModel

import reference_loader
from reference_loader.errors import BadConfig


class Config(PretrainedConfig):
    model_type = "values-needed"


class Needing(PreTrainedModel):
    config_class = Config
    runs = 0

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        type(self).runs += 1
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.needs()
        self.post_init()

    def needs(self) -> None:
        pass


class Item(Needing):
    def needs(self) -> None:
        self.largest = self.first.weight.abs().max().item() < 1


class Orthogonal(Needing):
    def needs(self) -> None:
        orthogonal(self.second)


class Moved(Needing):
    def needs(self) -> None:
        self.second.to("cpu")


class SetsData(Needing):
    def needs(self) -> None:
        self.second.weight.data = torch.eye(4)


class Wrong(Needing):
    def needs(self) -> None:
        raise RuntimeError("this has nothing to do with values")


@pytest.mark.parametrize("kind", [Item, Orthogonal, Moved, SetsData])
def test_what_was_saved_is_loaded(kind: type[Needing], tmp_path: Path) -> None:
    model = kind(Config())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    model.save_pretrained(tmp_path)

    loaded, info = reference_loader.from_pretrained(
        tmp_path, model_class=kind, output_loading_info=True
    )

    assert not any(info.values())
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@pytest.mark.parametrize(("kind", "runs"), [(Needing, 1), (Item, 2), (Wrong, 1)])
def test_only_such_a_constructor_runs_twice(
    kind: type[Needing], runs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Needing(Config()).save_pretrained(tmp_path)
    monkeypatch.setattr(kind, "runs", 0)

    load: Callable[[], object] = lambda: reference_loader.from_pretrained(  # noqa: E731
        tmp_path, model_class=kind
    )
    if kind is Wrong:
        with pytest.raises(BadConfig, match="nothing to do with values"):
            load()
    else:
        load()

    assert kind.runs == runs
