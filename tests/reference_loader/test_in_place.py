"""The reference loader in the place of transformers' `from_pretrained`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from reference_loader import LoadError, in_place, in_place_of_stock
from reference_loader.load import load

LIBRARY = "transformers.modeling_utils"


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The sources that the reference loader loads."""
    seen: list[Any] = []

    def watched(source: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(source)
        return load(source, *arguments, **options)

    monkeypatch.setattr(in_place, "load", watched)
    return seen


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the library logs; its records do not reach the root logger by themselves."""
    transformers_logging.enable_propagation()
    caplog.set_level(logging.WARNING, LIBRARY)
    yield caplog
    transformers_logging.disable_propagation()


@pytest.mark.parametrize("asked", [LlamaForCausalLM, AutoModelForCausalLM])
def test_every_way_to_call_it_comes_to_the_reference(
    checkpoint: Callable[..., Path], loads: list[Any], same_models: Callable[..., None], asked: Any
) -> None:
    folder = checkpoint("llama-f32")
    expected = asked.from_pretrained(folder)
    assert loads == []
    with in_place_of_stock():
        model, info = asked.from_pretrained(str(folder), output_loading_info=True)
    assert loads == [str(folder)]
    assert info["missing_keys"] == set()
    same_models(model, expected)


def test_it_is_put_back_whatever_happened(checkpoint: Callable[..., Path]) -> None:
    own = vars(PreTrainedModel)["from_pretrained"]
    with pytest.raises(LoadError), in_place_of_stock(), in_place_of_stock():
        assert vars(PreTrainedModel)["from_pretrained"] is not own
        LlamaForCausalLM.from_pretrained(checkpoint("llama-f32-3", "truncated-shard"))
    assert vars(PreTrainedModel)["from_pretrained"] is own


class Scaled(LlamaForCausalLM):
    """A class that does something with what it loaded."""

    @classmethod
    def from_pretrained(cls, *arguments: Any, **options: Any) -> Any:
        model = super().from_pretrained(*arguments, **options)
        model.scale = 2.0
        return model


def test_a_class_keeps_its_own_loading(checkpoint: Callable[..., Path], loads: list[Any]) -> None:
    folder = checkpoint("llama-f32")
    with in_place_of_stock():
        model = Scaled.from_pretrained(folder)
    assert (type(model), model.scale, loads) == (Scaled, 2.0, [folder])


def test_what_the_library_would_log_is_logged(
    checkpoint: Callable[..., Path], log: pytest.LogCaptureFixture
) -> None:
    """Code and tests look for these words, by this logger."""
    folder = checkpoint("llama-f32", "unexpected-key")
    told = []
    for _ in range(2):
        log.clear()
        LlamaForSequenceClassification.from_pretrained(folder)
        told.append([r.getMessage() for r in log.records if r.name == LIBRARY])
        with in_place_of_stock():
            log.clear()
            LlamaForSequenceClassification.from_pretrained(folder)
            told.append([r.getMessage() for r in log.records if r.name == LIBRARY])
    words = " ".join(told[1])
    assert "newly initialized" in words and "score.weight" in words
    assert told[0] == told[1] == told[2] == told[3]


def test_a_load_without_news_logs_nothing(
    checkpoint: Callable[..., Path], log: pytest.LogCaptureFixture
) -> None:
    with in_place_of_stock():
        LlamaForCausalLM.from_pretrained(checkpoint("llama-f32"))
    assert log.records == []


def test_on_the_meta_device_it_fails_as_the_library_does(
    checkpoint: Callable[..., Path],
) -> None:
    words = "You are using `from_pretrained` with a meta device context manager"
    with in_place_of_stock(), torch.device("meta"), pytest.raises(RuntimeError, match=words):
        AutoModel.from_pretrained(checkpoint("llama-f32"))


def test_the_hook_of_initialisation_is_called(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever puts another in its place has it run on what is missing, and on nothing else."""
    own = PreTrainedModel._initialize_weights

    def marked(self: Any, module: Any, *arguments: Any) -> None:
        own(self, module, *arguments)
        for parameter in module.parameters(recurse=False):
            if not parameter.is_meta:
                parameter.fill_(7.0)

    monkeypatch.setattr(PreTrainedModel, "_initialize_weights", marked)
    folder = checkpoint("llama-f32")
    with in_place_of_stock():
        model = LlamaForSequenceClassification.from_pretrained(folder)
    assert (model.score.weight == 7).all()
    assert not (model.model.norm.weight == 7).any()
