"""Model classes with rules of their own: a part of the config, generation config, loading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaForCausalLM

import reference_loader
from conformance_fixtures.write import materialise
from reference_loader.errors import BadConfig, LoadError, UnsupportedOption
from reference_loader.model.transformers_classes import _give_rope_its_old_names

transformers = pytest.importorskip("transformers")


class OwnGenerationConfig(GenerationConfig):  # type: ignore[misc]
    """A generation config of a model's own class."""


class WithOwnGenerationConfig(LlamaForCausalLM):  # type: ignore[misc]
    """Names its class of generation config."""

    generation_config_class = OwnGenerationConfig


class WithOwnLoading(LlamaForCausalLM):  # type: ignore[misc]
    """Does something after the load."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As the parent, and a mark."""
        model = super().from_pretrained(*args, **kwargs)
        model.marked = True
        return model


class WithReference(LlamaForCausalLM):  # type: ignore[misc]
    """Is loaded by the reference in stock's place."""

    from_pretrained = classmethod(reference_loader.from_pretrained)


def test_generation_config_has_the_class_that_the_model_names() -> None:
    folder = str(materialise("llama-generation"))
    model = reference_loader.from_pretrained(folder, model_class=WithOwnGenerationConfig)
    assert type(model.generation_config) is OwnGenerationConfig


def test_class_with_a_from_pretrained_of_its_own_is_refused_by_name() -> None:
    folder = str(materialise("llama-f32"))
    with pytest.raises(UnsupportedOption, match="WithOwnLoading"):
        reference_loader.from_pretrained(folder, model_class=WithOwnLoading)
    model = reference_loader.from_pretrained(folder, model_class=WithReference)
    assert isinstance(model, WithReference)


def test_auto_class_gives_a_text_model_the_text_part_of_a_composite_config(tmp_path: Path) -> None:
    name = "Qwen3_5ForCausalLM"
    if not hasattr(transformers, name):
        pytest.skip(f"this release has no {name}")
    text = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    }
    model = getattr(transformers, name)(transformers.Qwen3_5TextConfig(**text)).eval()
    model.save_pretrained(tmp_path)
    composite = {"model_type": "qwen3_5", "text_config": text, "dtype": "float32"}
    (tmp_path / "config.json").write_text(json.dumps(composite))
    loaded = reference_loader.from_pretrained(str(tmp_path), model_class=AutoModelForCausalLM)
    assert type(loaded) is type(model) and type(loaded.config) is type(model.config)
    assert loaded.config.name_or_path == str(tmp_path)
    left = loaded.state_dict()
    assert all(torch.equal(left[key], value) for key, value in model.state_dict().items())


def test_config_whose_scaling_is_another_name_of_its_parameters_keeps_them() -> None:
    class Config:
        def __init__(self) -> None:
            self.rope_theta = 1.0
            self.rope_parameters: Any = {"rope_type": "default", "rope_theta": 100.0}

        @property
        def rope_scaling(self) -> Any:
            return self.rope_parameters

        @rope_scaling.setter
        def rope_scaling(self, value: Any) -> None:
            self.rope_parameters = value

    config = Config()
    _give_rope_its_old_names(config)
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 100.0}


def test_a_name_of_an_early_checkpoint_names_its_class(own: Any) -> None:
    model = reference_loader.from_pretrained(own("llama-f32", architectures=["LLaMAForCausalLM"]))
    assert type(model) is LlamaForCausalLM


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        (["LlamaForCasualLM"], "Did you mean LlamaForCausalLM"),
        (["LlamaForConditionalGeneration"], "Did you mean Llama"),
        (["Trainer"], "Did you mean Llama"),
        (["PreTrainedModel"], "model_type is 'llama'"),
        (["LlamaPreTrainedModel"], "Did you mean Llama"),
        ([], "an Auto class"),
        (7, "not a list"),
    ],
)
def test_names_of_no_model_say_what_to_pass(own: Any, names: Any, meant: str) -> None:
    folder = own("llama-f32", architectures=names)
    with pytest.raises(LoadError, match=meant):
        reference_loader.from_pretrained(folder)
    model = reference_loader.from_pretrained(folder, model_class=AutoModelForCausalLM)
    assert type(model) is LlamaForCausalLM


def test_names_that_are_no_list_are_named_where_they_decide(tmp_path: Path) -> None:
    """CFG-13: an Auto class with several classes for one type of model asks for them."""
    fields = {"model_type": "funnel", "architectures": 7}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(BadConfig, match="architectures=7"):
        reference_loader.from_pretrained(tmp_path, model_class=transformers.AutoModel)
