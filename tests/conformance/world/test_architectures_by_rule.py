"""Tiny checkpoints of model types: which types, how a config is made small, what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, LlamaConfig, SwinConfig

from conformance.world.architectures import build as build_module
from conformance.world.architectures import smaller
from conformance.world.architectures.build import NotBuilt, write
from conformance.world.architectures.smaller import EXCEPTIONS, SCALES, Scale, shrink
from conformance.world.architectures.types import ModelType, model_types
from conformance_fixtures.files import read_safetensors

SMALLEST = SCALES[0]


def test_every_type_of_every_auto_class_is_one() -> None:
    from transformers.models.auto import modeling_auto

    names = {
        name
        for mapping, entries in vars(modeling_auto).items()
        if mapping.startswith("MODEL_") and mapping.endswith("_MAPPING_NAMES")
        for name in entries
    }
    assert set(model_types()) == names
    assert len(names) > 300


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("llama", "LlamaForCausalLM"),
        ("bart", "BartForConditionalGeneration"),
        ("bert", "BertForMaskedLM"),
        ("clip", "CLIPModel"),
        ("wav2vec2", "Wav2Vec2ForPreTraining"),
    ],
)
def test_a_checkpoint_is_of_the_class_that_is_published(name: str, published: str) -> None:
    assert model_types([name])[name].published == published


def test_types_are_chosen_by_globs() -> None:
    assert {"qwen2", "qwen2_moe"} <= set(model_types(["qwen2*", "llama"]))
    assert "llama" in model_types(["qwen2*", "llama"])
    assert not model_types(["no-such-type"])


def test_widths_are_divided_alike_and_layers_cut() -> None:
    config = shrink(LlamaConfig(num_hidden_layers=32, pad_token_id=31999), SMALLEST)

    assert (config.hidden_size, config.intermediate_size, config.head_dim) == (256, 688, 8)
    assert (config.num_attention_heads, config.num_hidden_layers, config.vocab_size) == (32, 2, 256)
    assert config.pad_token_id == 0


def test_lists_are_made_small_whole() -> None:
    config = shrink(SwinConfig(depths=[2, 2, 6, 2]), SMALLEST)

    assert list(config.depths) == [2, 2, 2, 2]


def test_a_width_that_cannot_be_divided_stays() -> None:
    config = LlamaConfig(hidden_size=100, num_attention_heads=5)

    assert shrink(config, SMALLEST).hidden_size == 100
    assert shrink(config, Scale(4, 2, 64)).hidden_size == 25


@pytest.mark.parametrize("name", [name for name in EXCEPTIONS if name in model_types()])
def test_every_exception_is_needed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the class accepts no config that the rule makes of the defaults."""
    import transformers

    model_class = getattr(transformers, model_types()[name].published)
    monkeypatch.setattr(build_module, "EXCEPTIONS", {})
    with pytest.raises(Exception, match=r"."), torch.device("meta"):
        model_class(build_module._config(name, model_class, SMALLEST))


def test_exceptions_are_of_types_that_exist() -> None:
    assert set(EXCEPTIONS) <= set(CONFIG_MAPPING)


def test_the_same_bytes_are_written_each_time(tmp_path: Path) -> None:
    """Whatever was drawn before: values are seeded by names."""
    llama = model_types(["llama"])["llama"]
    write(llama, tmp_path / "first")
    torch.rand(7)
    write(llama, tmp_path / "second")

    first, second = (
        read_safetensors(tmp_path / name / "model.safetensors")[0] for name in ("first", "second")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert len({float(tensor.flatten()[0]) for tensor in first.values()}) == len(first)


def test_a_frozen_table_is_its_constructors(tmp_path: Path) -> None:
    """Marian does not save its sinusoids."""
    model: Any = write(model_types(["marian"])["marian"], tmp_path / "checkpoint").model

    assert float(model.model.encoder.embed_positions.weight[0].abs().max()) == 1.0


def test_what_cannot_be_built_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = ModelType("llama", {"MODEL_MAPPING_NAMES": "NoSuchModel"})
    with pytest.raises(NotBuilt, match="does not export NoSuchModel"):
        write(unknown, tmp_path / "unknown")
    monkeypatch.setattr(build_module, "MOST_PARAMETERS", 10)
    with pytest.raises(NotBuilt, match=r"it has [0-9,]+ parameters"):
        write(model_types(["llama"])["llama"], tmp_path / "large")


def test_the_rules_stay_short() -> None:
    assert len(Path(str(smaller.__file__)).read_text("utf-8").splitlines()) < 300
