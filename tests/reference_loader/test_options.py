"""The options: all of the contract's, none ignored in silence. DTY-4, CFG-3."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

import reference_loader
from reference_loader import from_pretrained, plan
from reference_loader.errors import BadOptions, UnsupportedOption
from reference_loader.options import REFUSED, WITHOUT_EFFECT, Options

# The contract of DESIGN.md, section 4.
CONTRACT = {
    "model_class": None,
    "config": None,
    "state_dict": None,
    "dtype": "auto",
    "device_map": None,
    "max_memory": None,
    "offload_folder": None,
    "offload_buffers": False,
    "subfolder": "",
    "variant": None,
    "revision": "main",
    "cache_dir": None,
    "token": None,
    "local_files_only": False,
    "force_download": False,
    "use_safetensors": None,
    "weights_only": True,
    "ignore_mismatched_sizes": False,
    "key_mapping": None,
    "attn_implementation": None,
    "output_loading_info": False,
    "strict": False,
}


@pytest.mark.parametrize("function", [from_pretrained, plan])
def test_the_signature_is_the_contract(function: Any) -> None:
    parameters = inspect.signature(function).parameters
    assert next(iter(parameters)) == "source"
    assert parameters["model_args"].kind is inspect.Parameter.VAR_POSITIONAL
    assert list(parameters.values())[-1].kind is inspect.Parameter.VAR_KEYWORD
    shown = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert CONTRACT.items() <= shown.items()


def test_the_package_shows_the_contract() -> None:
    assert {"from_pretrained", "plan", "LoadPlan", "LoadError"} <= set(reference_loader.__all__)


def test_every_default_passed_by_hand_is_no_option(checkpoint: Any, same_models: Any) -> None:
    folder = checkpoint("llama-f32")
    same_models(from_pretrained(folder, **CONTRACT), from_pretrained(folder))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_would_change_the_model_is_refused(checkpoint: Any, name: str) -> None:
    folder = checkpoint("llama-f32")
    for function in (from_pretrained, plan):
        with pytest.raises(UnsupportedOption, match=name):
            function(folder, **{name: object()})
    assert Options.of({name: None}) == Options()  # as not given


@pytest.mark.parametrize("name", sorted(WITHOUT_EFFECT))
def test_what_changes_nothing_reaches_neither_config_nor_model(name: str) -> None:
    assert Options.of({name: True}) == Options()


def test_a_source_or_a_state_dict_is_needed(checkpoint: Any) -> None:
    """RES-11."""
    for function in (from_pretrained, plan):
        with pytest.raises(BadOptions, match="neither"):
            function(None)
        with pytest.raises(BadOptions, match="both"):
            function(checkpoint("llama-f32"), state_dict={})
        with pytest.raises(BadOptions, match="config"):
            function(None, state_dict={})


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        ({}, "auto"),
        ({"torch_dtype": torch.float16}, torch.float16),
        ({"torch_dtype": "float16", "dtype": None}, "float16"),
        ({"torch_dtype": None}, "auto"),
        ({"torch_dtype": "float16", "dtype": "bfloat16"}, "bfloat16"),
    ],
    ids=str,
)
def test_torch_dtype_is_taken_for_dtype(given: Any, dtype: Any) -> None:
    """DTY-4: `dtype` wins where both are given."""
    options = Options.of(given)
    assert (options.dtype, options.overrides) == (dtype, {})


def test_the_rest_are_overrides_in_their_order() -> None:
    """CFG-3."""
    options = Options.of({"z": 1, "strict": True, "a": None, "_from_auto": True})
    assert list(options.overrides.items()) == [("z", 1), ("a", None)]
    assert options.strict


def test_overrides_is_a_name_like_any_other() -> None:
    assert Options.of({"overrides": 3}).overrides == {"overrides": 3}
