"""The weights that no file holds. MIS-1 to MIS-3, MIS-5, MIS-6, TIE-6, TIE-7."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from transformers import (
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from conformance_fixtures.files import write_json, write_safetensors
from reference_loader import from_pretrained


class TinyConfig(PretrainedConfig):
    """As small as a config can be."""

    model_type = "tiny-of-the-tests"

    def __init__(self, size: int = 64, **fields: Any) -> None:
        self.size = size
        super().__init__(**fields)


class Tiny(PreTrainedModel):
    """Initialises its linear in `_init_weights`, all else in its constructor."""

    config_class = TinyConfig
    base_model_prefix = "body"

    def __init__(self, config: TinyConfig) -> None:
        super().__init__(config)
        self.linear = nn.Linear(config.size, config.size)
        self.stored = nn.Parameter(torch.full((3,), 5.0))
        self.constant = nn.Parameter(torch.full((3,), 7.0))
        self.ramp = nn.Parameter(torch.arange(4.0), requires_grad=False)
        self.norm = nn.LayerNorm(3)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, mean=1.0, std=0.5)
            nn.init.zeros_(module.bias)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A checkpoint of `Tiny` that holds one parameter, with values a NaN would spoil."""
    write_json(tmp_path / "config.json", {"model_type": TinyConfig.model_type, "size": 64})
    write_safetensors(tmp_path / "model.safetensors", {"stored": torch.tensor([1.0, 2.0, 3.0])})
    return tmp_path


def seeded(seed: int, load: Any, *args: Any, **options: Any) -> Any:
    torch.manual_seed(seed)
    return load(*args, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_what_init_weights_leaves_alone_keeps_the_constructors_values(
    tiny: Path, dtype: torch.dtype
) -> None:
    """MIS-1: in every dtype; flags too."""
    model = from_pretrained(tiny, model_class=Tiny, dtype=dtype)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert model.constant.tolist() == [7.0] * 3
    assert model.ramp.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert not model.ramp.requires_grad
    assert model.norm.weight.tolist() == [1.0] * 3
    assert model.norm.bias.tolist() == [0.0] * 3
    assert model.linear.bias.count_nonzero() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_init_weights_makes_has_its_distribution(tiny: Path, dtype: torch.dtype) -> None:
    """MIS-1: mean 1, deviation 1/2, over 4096 values: 6 standard errors."""
    weight = seeded(3, from_pretrained, tiny, model_class=Tiny, dtype=dtype).linear.weight.double()
    assert abs(weight.mean() - 1.0) < 6 * 0.5 / 64
    assert abs(weight.std() - 0.5) < 6 * 0.5 / 90
    assert weight.unique().numel() > 100


def test_loaded_weights_stay(tiny: Path) -> None:
    """MIS-6."""
    model, info = from_pretrained(tiny, model_class=Tiny, output_loading_info=True)
    assert model.stored.tolist() == [1.0, 2.0, 3.0]
    assert info["missing_keys"] == {n for n, _ in model.named_parameters()} - {"stored"}


class Loud(LlamaForCausalLM):
    """Initialises every module it is given, whatever that holds, to a number no file has."""

    def _init_weights(self, module: nn.Module) -> None:
        for parameter in module.parameters():
            parameter.data.fill_(99.0)


def test_no_initialiser_reaches_a_loaded_weight(checkpoint: Any) -> None:
    """MIS-6: even one that goes round every protection."""
    whole = from_pretrained(checkpoint("llama-f32"), model_class=LlamaForCausalLM)
    model = from_pretrained(checkpoint("llama-f32", "missing-head"), model_class=Loud)
    assert model.lm_head.weight.unique().tolist() == [99.0]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, model.model.state_dict()[name]), name


MISSING = [
    ("llama-f32", ("missing-head",), LlamaForCausalLM),
    ("llama-bf16", ("missing-head",), LlamaForCausalLM),
    ("llama-f32-2", ("missing-key",), LlamaForCausalLM),
    ("llama-f32", ("missing-norm",), LlamaForCausalLM),
    ("llama-untied-neither", (), LlamaForCausalLM),
    ("llama-tied-neither", (), LlamaForCausalLM),
    ("llama-base", (), LlamaForSequenceClassification),
]


@pytest.mark.parametrize(("recipe", "faults", "model_class"), MISSING)
def test_under_one_seed_the_numbers_are_stocks(
    checkpoint: Any, same_models: Any, recipe: str, faults: Any, model_class: Any
) -> None:
    """MIS-2."""
    folder = checkpoint(recipe, *faults)
    ours, info = seeded(
        7, from_pretrained, folder, model_class=model_class, output_loading_info=True
    )
    again = seeded(7, from_pretrained, folder, model_class=model_class)
    other = seeded(8, from_pretrained, folder, model_class=model_class)
    stock, theirs = seeded(7, model_class.from_pretrained, folder, output_loading_info=True)
    same_models(ours, stock)
    same_models(ours, again)
    assert info == theirs
    assert info["missing_keys"]
    drawn = [n for n in info["missing_keys"] if "norm" not in n]
    assert all(not torch.equal(ours.state_dict()[n], other.state_dict()[n]) for n in drawn)


@pytest.mark.parametrize(
    "recipe", ["llama-f32", "llama-bf16-2", "llama-tied-embedding", "llama-tied-head"]
)
def test_where_nothing_is_missing_no_number_is_drawn(
    checkpoint: Any, unchanged: Any, recipe: str
) -> None:
    """MIS-3, STA-1."""
    folder = checkpoint(recipe)
    with unchanged(folder):
        from_pretrained(folder)


def test_a_tolerated_mismatch_is_initialised(checkpoint: Any, same_models: Any) -> None:
    """MIS-5: with stock's numbers under stock's seed."""
    folder = checkpoint("llama-f32", "wrong-shape")
    options = {"ignore_mismatched_sizes": True, "output_loading_info": True}
    ours, info = seeded(5, from_pretrained, folder, model_class=LlamaForCausalLM, **options)
    stock, theirs = seeded(5, LlamaForCausalLM.from_pretrained, folder, **options)
    same_models(ours, stock)
    assert info == theirs
    name = "model.layers.0.mlp.up_proj.weight"
    assert info["mismatched_keys"] == {(name, (63, 32), (64, 32))}
    assert 0 < ours.get_parameter(name).std() < 0.05


class Random(Tiny):
    """Draws in its constructor, and computes a parameter from another."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__(config)
        self.noise = nn.Parameter(torch.randn(16))


def test_a_constructors_random_values_follow_the_seed(tiny: Path) -> None:
    """MIS-2."""
    one, same, other = (
        seeded(seed, from_pretrained, tiny, model_class=Random).noise for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.count_nonzero() == 16


class Derived(Tiny):
    """Computes a parameter from one that the checkpoint holds."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__(config)
        self.derived = nn.Parameter(self.stored.detach() * 2)


def test_a_parameter_computed_from_a_loaded_one_has_the_constructors_value(tiny: Path) -> None:
    """MIS-1: the values that a newly made model would have."""
    assert from_pretrained(tiny, model_class=Derived).derived.tolist() == [10.0] * 3


class Helper(nn.Module):
    """Has a method of the name that transformers calls on whole models, and calls it itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.initialize_weights()

    def initialize_weights(self) -> None:
        self.register_buffer("scale", torch.full((2,), 3.0))


class Buffered(Tiny):
    """Buffers whose values only `_init_weights`, or only the method of a part, gives."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__(config)
        self.counted = nn.BatchNorm1d(3, affine=False)
        self.helper = Helper()
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.BatchNorm1d):
            assert module.running_mean is not None
            module.running_mean.fill_(4.0)


def test_a_buffer_that_is_missing_has_the_values_of_init_weights(tiny: Path) -> None:
    """MIS-1: of the class's own initialisation, as of a newly made model."""
    model, made = from_pretrained(tiny, model_class=Buffered), Buffered(TinyConfig())
    for name, buffer in made.named_buffers():
        assert torch.equal(buffer, model.get_buffer(name)), name
    assert model.counted.running_mean.tolist() == [4.0] * 3
    assert model.helper.scale.tolist() == [3.0] * 2


def test_no_module_is_left_to_be_initialised_once_more(tiny: Path) -> None:
    """MIS-6: what the user's own `init_weights` would do to loaded weights."""
    model = from_pretrained(tiny, model_class=Buffered)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.init_weights()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class Normed(PreTrainedModel):
    """A weight that two parameters give, and an `_init_weights` that looks at it."""

    config_class = TinyConfig

    def __init__(self, config: TinyConfig) -> None:
        super().__init__(config)
        self.layer = weight_norm(nn.Linear(3, 4))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            assert module.weight.isfinite().all()


@pytest.mark.parametrize("part", ["original0", "original1"])
def test_half_of_a_weight_norm_is_missing(tiny: Path, part: str) -> None:
    """MIS-1: the half that is stored is stored, the other one is the constructor's."""
    name = f"layer.parametrizations.weight.{part}"
    torch.manual_seed(7)
    stored = {
        key: value.detach().clone() for key, value in Normed(TinyConfig()).state_dict().items()
    }
    missing = stored.pop(name)
    write_safetensors(tiny / "model.safetensors", stored)
    model, info = from_pretrained(tiny, model_class=Normed, output_loading_info=True)
    assert list(info["missing_keys"]) == [name]
    found = model.state_dict()
    assert all(torch.equal(found[key], value) for key, value in stored.items())
    assert found[name].shape == missing.shape
    assert found[name].isfinite().all() and found[name].abs().max() > 0
