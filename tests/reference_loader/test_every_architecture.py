"""Every model type of the installed release: the reference reads what the release saves.

By rule, without a list of types: `conformance.world.architectures` builds a tiny model of each.
What it loads as must be what was saved, bit for bit; ties and loading info too. `make test-slow`
takes every sixteenth type, `make test` a quarter of them, `make test-nightly` all. How stock loads
them is `conformance check --arch`.
"""

from __future__ import annotations

import gc
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import reference_loader
from conformance.world.architectures.build import NotBuilt, write
from conformance.world.architectures.types import model_types
from conformance.world.messages import quiet
from reference_loader.errors import LoadError, UnsupportedOption

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
TYPES = list(model_types().values())
SLOW = [] if NIGHTLY else [pytest.mark.slow]
SAMPLE = [
    pytest.param(each, id=each.name, marks=[] if not number % 64 else SLOW)
    for number, each in enumerate(TYPES)
    if NIGHTLY or not number % 16
]
FIELDS = ("missing_keys", "unexpected_keys", "mismatched_keys")


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer under each of its names."""
    everything = {"remove_duplicate": False}
    return dict(model.named_parameters(**everything)) | dict(model.named_buffers(**everything))


def _ties(model: nn.Module) -> list[list[str]]:
    """The names of each parameter that has several."""
    names: dict[int, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
    return sorted(sorted(each) for each in names.values() if len(each) > 1)


def _differences(saved: nn.Module, loaded: nn.Module, info: dict[str, Any]) -> list[str]:
    """What of the saved model the loaded one is not."""
    wanted, found = _tensors(saved), _tensors(loaded)
    told = [f"{field}: {sorted(info[field])}" for field in FIELDS if info[field]]
    told += [f"name: {name}" for name in sorted(wanted.keys() ^ found.keys())]
    told += [] if _ties(saved) == _ties(loaded) else [f"ties: {_ties(saved)}, {_ties(loaded)}"]
    for name in sorted(wanted.keys() & found.keys()):
        expected, actual = wanted[name].detach(), found[name].detach()
        if (expected.dtype, expected.shape) != (actual.dtype, actual.shape):
            told.append(f"dtype or shape: {name}")
        elif not torch.equal(_bits(expected), _bits(actual)):
            told.append(f"values: {name}")
        elif expected.requires_grad != actual.requires_grad:
            told.append(f"requires_grad: {name}")
    return told


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else tensor


@pytest.mark.parametrize("model_type", SAMPLE)
def test_it_is_loaded_as_it_was_saved(model_type: Any, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    with quiet():
        try:
            saved = write(model_type, folder).model
        except NotBuilt as reason:
            pytest.skip(f"not built: {reason}")
    model_class: Any = type(saved)
    given: dict[str, Any] = {"output_loading_info": True}
    with quiet():
        try:
            ours, info = reference_loader.from_pretrained(folder, model_class=model_class, **given)
        except LoadError as error:
            own = any("from_pretrained" in vars(each) for each in model_class.__mro__[:-1])
            assert own and isinstance(error, UnsupportedOption), f"refused: {error.code}: {error}"
            pytest.skip(str(error))
        differing = _differences(saved, ours, info)
        if differing:  # unless the class saves what it cannot read
            theirs, _ = model_class.from_pretrained(folder, **given)
            assert _differences(saved, theirs, info), differing
            assert _ties(ours) == _ties(theirs)
    del saved, ours
    gc.collect()
