"""What a folder is that no plain load can be judged on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conformance.cases.folder_kinds import adapter_beside, no_checkpoint, notes, quantised
from conformance.cases.own import Own, own_cases


def folder(path: Path, *names: str, **config: object) -> Path:
    for name in names:
        (path / name).write_text("{}")
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_an_empty_folder(tmp_path: Path) -> None:
    assert no_checkpoint(tmp_path) == "empty folder"


def test_an_adapter_names_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    assert no_checkpoint(tmp_path) == "adapter of org/base (needs peft)"


def test_an_adapter_beside_weights_is_a_note(tmp_path: Path) -> None:
    folder(tmp_path, "model.safetensors", "adapter_config.json")
    assert no_checkpoint(tmp_path) is None
    assert "only peft applies it" in (adapter_beside(tmp_path) or "")


@pytest.mark.parametrize(
    ("names", "config", "reason"),
    [
        (["weights.safetensors"], {}, "weights under another name: weights.safetensors"),
        (["tiny.gguf"], {}, "weights under another name: tiny.gguf"),
        ([], {}, "no weights: model.safetensors is missing"),
        (["model.safetensors"], {"quantization": {"bits": 4}}, "MLX"),
    ],
)
def test_what_is_there_instead_is_named(
    names: list[str], config: dict[str, object], reason: str, tmp_path: Path
) -> None:
    (case,) = own_cases(Own((folder(tmp_path, *names, **config),)))
    assert reason in case.unfit


def test_a_weight_file_that_the_config_names_is_no_other_name(tmp_path: Path) -> None:
    folder(tmp_path, "mine.safetensors", transformers_weights="mine.safetensors")
    assert no_checkpoint(tmp_path) is None


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"quant_method": "gptq", "bits": 4}, "GPTQ 4 bit (needs gptqmodel)"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes 4 bit"),
        ({"quant_method": "new"}, "NEW (quantised)"),
        ({}, "unknown method (quantised)"),
    ],
)
def test_a_quantisation_in_words(config: dict[str, object], words: str, tmp_path: Path) -> None:
    made = folder(tmp_path, "model.safetensors", quantization_config=config)
    assert words in (quantised(made) or "")
    assert len(own_cases(Own((made,)))) == 1


def test_the_note_names_its_checkpoint(tmp_path: Path) -> None:
    made = folder(tmp_path, "model.safetensors")
    assert notes([made]) == []
    (made / "adapter_config.json").write_text("{}", "utf-8")
    assert notes([made]) == [f"{made.name}: {adapter_beside(made)}"]
