"""What is asked of a model class: config, class, overrides. CFG-1 to CFG-3, CFG-5, CFG-8, CFG-9."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
)

from reference_loader import from_pretrained, plan
from reference_loader.llama import Llama


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (None, LlamaForCausalLM),
        (AutoModel, LlamaModel),
        (AutoModelForCausalLM, LlamaForCausalLM),
        (AutoModelForSequenceClassification, LlamaForSequenceClassification),
        (LlamaModel, LlamaModel),
        (Llama, Llama),
    ],
)
def test_the_class_that_is_built(checkpoint: Any, asked: Any, given: Any) -> None:
    """CFG-5: the very class that stock gives."""
    folder = checkpoint("llama-f32")
    assert type(from_pretrained(folder, model_class=asked)) is given
    assert plan(folder, model_class=asked).model_class is given


@pytest.mark.parametrize("model_class", [LlamaForCausalLM, Llama])
def test_old_field_names_are_the_new(checkpoint: Any, model_class: Any) -> None:
    """CFG-1."""
    old, new = (
        from_pretrained(checkpoint(recipe), model_class=model_class)
        for recipe in ("llama-old-config", "llama-bf16")
    )
    assert {p.dtype for p in old.parameters()} == {torch.bfloat16}
    tokens = torch.arange(6)[None]
    assert torch.equal(old(tokens).logits, new(tokens).logits)


def test_a_passed_config_stays_as_it_is(checkpoint: Any) -> None:
    """CFG-2: neither the load nor the model's later life writes to it."""
    config = AutoConfig.from_pretrained(checkpoint("llama-f32"))
    before, text = dict(vars(config)), str(config)
    model = from_pretrained(
        checkpoint("llama-f32"), config=config, dtype="float16", attn_implementation="eager"
    )
    assert (str(config), dict(vars(config))) == (text, before)
    assert model.config is not config
    assert model.config.dtype == torch.float16
    model.config.vocab_size = 3
    assert config.vocab_size == 128


def test_a_config_by_its_folder(checkpoint: Any, own: Any) -> None:
    """CFG-3: weights from here, config from there."""
    folder = own("llama-f32", "no-config")
    elsewhere = checkpoint("llama-f32")
    model = from_pretrained(folder, config=elsewhere, model_class=LlamaForCausalLM)
    assert model.config.num_hidden_layers == 3
    config = AutoConfig.from_pretrained(elsewhere)
    assert from_pretrained(folder, config=config).config.num_hidden_layers == 3


class WithGain(LlamaForCausalLM):
    """A user's class with arguments of its own."""

    def __init__(self, config: LlamaConfig, bias: float = 0.0, *, gain: float = 1.0) -> None:
        super().__init__(config)
        self.given = (bias, gain)


def test_overrides_go_to_the_config_first_and_then_to_the_model(checkpoint: Any) -> None:
    """CFG-3."""
    folder = checkpoint("llama-f32")
    model = from_pretrained(folder, 5.0, model_class=WithGain, gain=2.0, num_hidden_layers=1)
    assert model.given == (5.0, 2.0)
    assert len(model.model.layers) == model.config.num_hidden_layers == 1
    assert not hasattr(model.config, "gain")
    with pytest.raises(TypeError, match="nonsense"):
        from_pretrained(folder, model_class=WithGain, nonsense=1)


def test_with_a_config_object_all_overrides_are_the_models(checkpoint: Any) -> None:
    """CFG-3: as stock does it."""
    folder = checkpoint("llama-f32")
    config = AutoConfig.from_pretrained(folder)
    model = from_pretrained(folder, model_class=WithGain, config=config, gain=2.0)
    assert model.given == (0.0, 2.0)
    for load in (from_pretrained, LlamaForCausalLM.from_pretrained):
        more = {"model_class": LlamaForCausalLM} if load is from_pretrained else {}
        with pytest.raises(TypeError, match="num_hidden_layers"):
            load(folder, config=config, num_hidden_layers=1, **more)


def test_the_config_afterwards(checkpoint: Any) -> None:
    """CFG-8."""
    folder = checkpoint("llama-f32")
    config = from_pretrained(folder, dtype="bfloat16").config
    assert (config.name_or_path, config.dtype) == (str(folder), torch.bfloat16)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_attention_that_is_asked_for(checkpoint: Any, implementation: str) -> None:
    """CFG-9."""
    folder = checkpoint("llama-f32")
    model = from_pretrained(folder, attn_implementation=implementation)
    assert model.config._attn_implementation == implementation


class Kept(LlamaForCausalLM):
    """Keeps some norms in float32 under float16, others also under bfloat16."""

    _keep_in_fp32_modules = ["norm"]  # noqa: RUF012  the library's own form
    _keep_in_fp32_modules_strict = ["input_layernorm"]  # noqa: RUF012


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        ("float16", {"norm", "input_layernorm"}),
        ("bfloat16", {"input_layernorm"}),
        ("float64", set()),
    ],
)
def test_modules_kept_in_float32(checkpoint: Any, dtype: str, kept: set[str]) -> None:
    """DTY-9: whole module names, and the values unrounded."""
    folder = checkpoint("llama-f32")
    model = from_pretrained(folder, model_class=Kept, dtype=dtype)
    whole = from_pretrained(folder, dtype="float32").state_dict()
    for name, parameter in model.named_parameters():
        expected = torch.float32 if kept & set(name.split(".")) else getattr(torch, dtype)
        assert parameter.dtype == expected, name
        assert torch.equal(parameter, whole[name].to(expected)), name


class Everything(LlamaForCausalLM):
    """A user's class with a buffer, a hook, a flag and a parameter class of its own."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.register_buffer("scale", torch.full((config.vocab_size,), 2.0), persistent=False)
        self.model.embed_tokens.weight.requires_grad = False
        self.lm_head.register_forward_hook(lambda _, __, output: output * self.scale)
        self.names = ["kept"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_a_users_constructor_sets_is_there(checkpoint: Any, dtype: str) -> None:
    """INI-2, INI-3, INI-5."""
    folder = checkpoint("llama-f32")
    model = from_pretrained(folder, model_class=Everything, dtype=dtype)
    plain = from_pretrained(folder, dtype=dtype)
    assert model.names == ["kept"]
    assert not model.model.embed_tokens.weight.requires_grad
    assert model.lm_head.weight.requires_grad
    tokens = torch.arange(5)[None]
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, plain(tokens).logits * 2)


def test_rotary_frequencies(checkpoint: Any) -> None:
    """INI-1, DTY-8: the formula's, in float32, though the model is bfloat16."""
    model = from_pretrained(checkpoint("llama-bf16"))
    frequencies = model.model.rotary_emb.inv_freq
    expected = 10000.0 ** -(torch.arange(0, 8, 2).double() / 8)
    assert frequencies.dtype == torch.float32
    assert torch.allclose(frequencies.double(), expected, rtol=1e-6, atol=0)


def test_no_tensor_is_left_on_meta(checkpoint: Any) -> None:
    """INI-4: in any of the ways a weight can be absent."""
    for recipe, *faults in (("llama-f32", "missing-key"), ("llama-tied-neither",), ("llama-base",)):
        model = from_pretrained(checkpoint(recipe, *faults), model_class=LlamaForCausalLM)
        tensors: list[torch.Tensor] = [*model.parameters(), *model.buffers()]
        assert {t.device.type for t in tensors} == {"cpu"}
        assert all(isinstance(p, nn.Parameter) and p.is_leaf for p in model.parameters())


SCRIPT = """
import sys
import reference_loader
from reference_loader.llama import Llama
reference_loader.plan({folder!r}, model_class=Llama)
model = reference_loader.from_pretrained({folder!r}, model_class=Llama)
assert type(model) is Llama and not model.training
print(sorted(m for m in sys.modules if m.split(".")[0] in ("transformers", "accelerate")))
"""


def test_our_own_llama_needs_no_transformers(checkpoint: Any) -> None:
    script = SCRIPT.format(folder=str(checkpoint("llama-tied-embedding-3")))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
