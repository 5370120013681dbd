"""Transformers' `ModelTesterMixin` on the tiny models that `conformance.world.architectures` makes.

`tests.upstream.run` runs it: the tests of the installed release are in a folder that it unpacks,
as the package `upstream_tests`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import TestCase

import pytest
import torch
import transformers

# What `run` unpacks; there is no such package otherwise.
from upstream_tests import test_modeling_common as common  # type: ignore[import-not-found]

import reference_loader
from conformance.world.architectures.build import NotBuilt, write
from conformance.world.architectures.types import ModelType, model_types

IN_PLACE, TYPES = "UPSTREAM_IN_PLACE", "UPSTREAM_TYPES"
ROWS, COLUMNS = 2, 7


@pytest.fixture(autouse=True)
def who_loads() -> Iterator[None]:
    """The reference, where the run is to have it in the place of stock."""
    asked = os.environ.get(IN_PLACE)
    with reference_loader.in_place_of_stock() if asked else nullcontext():
        yield


@cache
def tiny(model_type: str) -> Any:
    """The config of the tiny model of a type.

    Raises:
        NotBuilt: there is none.
    """
    with TemporaryDirectory() as folder:
        return write(model_types([model_type])[model_type], Path(folder)).model.config


class Tester:
    """What the library's tests ask of a model: a config, and inputs for it.

    Attributes:
        batch_size, seq_length: of the inputs.
        hidden_size, num_hidden_layers, num_attention_heads: of the config's text part.
    """

    is_training = False
    batch_size, seq_length = ROWS, COLUMNS

    def __init__(self, model_type: ModelType) -> None:
        self._type = model_type
        text = self.get_config().get_text_config()
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads"):
            setattr(self, name, getattr(text, name, None))

    def get_config(self) -> Any:
        """A config of small sizes."""
        return copy.deepcopy(tiny(self._type.name))

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, torch.Tensor]]:
        """A config, and tokens that are no special ones."""
        config = self.get_config()
        tokens = common.ids_tensor([ROWS, COLUMNS], config.get_text_config().vocab_size // 2) + 2
        mask = torch.ones_like(tokens)
        inputs = {"input_ids": tokens, "attention_mask": mask}
        if config.is_encoder_decoder:
            inputs |= {"decoder_input_ids": tokens.clone(), "decoder_attention_mask": mask.clone()}
        return config, inputs


def tests_of(model_type: ModelType) -> type:
    """The tests of the library for a model type: for its published class, and its base model."""
    base = model_type.classes.get("MODEL_MAPPING_NAMES")
    names = dict.fromkeys([model_type.published, base or model_type.published])

    class OfType(common.ModelTesterMixin, TestCase):  # type: ignore[misc]
        all_model_classes = tuple(getattr(transformers, name) for name in names)
        is_encoder_decoder = False

        def setUp(self) -> None:
            self.model_tester = Tester(model_type)

    OfType.__name__ = OfType.__qualname__ = f"Test_{model_type.name}".replace("-", "_")
    return OfType


def _testable(model_type: ModelType) -> bool:
    """Whether a tiny model of the type can be built, and takes nothing but tokens."""
    try:
        config = tiny(model_type.name)
    except NotBuilt:
        return False
    return hasattr(config, "vocab_size") and not getattr(type(config), "sub_configs", {})


for _type in model_types(os.environ[TYPES].split(",")).values():
    if _testable(_type):
        _made = tests_of(_type)
        globals()[_made.__name__] = _made
del _made  # else it would be collected once more, by this name
