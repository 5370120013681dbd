"""`save_pretrained` writes what it writes of a model that stock loaded. SAV-1 to SAV-5."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, LlamaModel, MixtralForCausalLM

import reference_loader
from conformance.world.user_models import WithLayerNorm, WithWeightNorm

WITHOUT_PREFIX = {"key_mapping": {r"^module\.": ""}}
SMALLER = {"ignore_mismatched_sizes": True, "vocab_size": 100}
ON_DISK = {
    "device_map": {"model.embed_tokens": "cpu", "model.layers": "disk", "lm_head": "cpu"}
    | {"model.norm": "cpu", "model.rotary_emb": "cpu"}
}


def files_of(folder: Path) -> dict[str, Any]:
    """Every file that was saved: the tensors of weight files, the fields of others."""
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        weights = path.suffix == ".safetensors"
        found[path.name] = load_file(path) if weights else json.loads(path.read_text("utf-8"))
    return found


def same_files(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    for name, content in theirs.items():
        if not name.endswith(".safetensors"):
            assert ours[name] == content, name
            continue
        assert ours[name].keys() == content.keys(), name
        for key, tensor in content.items():
            mine = ours[name][key]
            assert (mine.dtype, mine.shape) == (tensor.dtype, tensor.shape), key
            assert torch.equal(mine.view(torch.uint8), tensor.view(torch.uint8)), key


@pytest.mark.parametrize(
    ("model_class", "recipe", "faults", "options"),
    [
        (LlamaForCausalLM, "llama-f32", (), {}),
        (LlamaForCausalLM, "llama-bf16", (), {"dtype": "float32"}),
        (LlamaForCausalLM, "llama-base-2", (), {}),
        (LlamaModel, "llama-f32-3", (), {}),
        (LlamaForCausalLM, "llama-tied-embedding", (), {}),
        (LlamaForCausalLM, "llama-tied-head", (), {}),
        (LlamaForCausalLM, "llama-f32", ("module-prefix",), WITHOUT_PREFIX),
        (LlamaModel, "llama-f32", ("module-prefix",), WITHOUT_PREFIX),
        (WithLayerNorm, "llama-f32", ("legacy-norm-names",), {}),
        (WithWeightNorm, "llama-f32", ("legacy-weight-norm-names",), {}),
        (LlamaForCausalLM, "llama-f32", (), SMALLER),
        (LlamaForCausalLM, "llama-f32-3", (), ON_DISK),
        (MixtralForCausalLM, "mixtral", (), {}),
        (MixtralForCausalLM, "mixtral", (), {"dtype": "bfloat16"}),
        (MixtralForCausalLM, "mixtral", (), SMALLER),
        (MixtralForCausalLM, "mixtral-3", (), ON_DISK),
    ],
)
@pytest.mark.parametrize("most", ["50GB", "20KB"])
def test_saved_as_stock_saves(  # noqa: PLR0917  what pytest passes
    checkpoint: Any,
    tmp_path: Path,
    model_class: Any,
    recipe: str,
    faults: tuple[str, ...],
    options: dict[str, Any],
    most: str,
) -> None:
    folder = checkpoint(recipe, *faults)
    written = []
    for number, loader in enumerate((model_class.from_pretrained, ours_of(model_class))):
        torch.manual_seed(0)
        given = options
        if "device_map" in options:
            given = options | {"offload_folder": tmp_path / f"offloaded-{number}"}
        model = loader(folder, **given)
        model.save_pretrained(tmp_path / str(number), max_shard_size=most)
        written.append(files_of(tmp_path / str(number)))
    same_files(written[1], written[0])


def ours_of(model_class: Any) -> Any:
    """The reference, for one class."""
    return lambda folder, **options: reference_loader.from_pretrained(
        folder, model_class=model_class, **options
    )


def test_a_checkpoint_in_the_layout_of_the_model_stays_in_it(
    checkpoint: Any, tmp_path: Path
) -> None:
    """SAV-1: no conversion was used, so none is reverted."""
    first = MixtralForCausalLM.from_pretrained(checkpoint("mixtral"))
    first.save_pretrained(tmp_path / "merged", save_original_format=False)
    again = ours_of(MixtralForCausalLM)(tmp_path / "merged")
    again.save_pretrained(tmp_path / "again")
    same_files(files_of(tmp_path / "again"), files_of(tmp_path / "merged"))


@pytest.mark.parametrize(
    "mapping",
    [
        {r"^(module)\.(model|lm_head)(.*)": r"\2\3"},
        {r"(?i)^MODULE\.": ""},
        {r"^(?P<g0>module)\.": ""},
        {r"^module\.(x)?": r"\1"},
    ],
    ids=["groups", "flags", "a name that the library gives too", "a group without a match"],
)
def test_a_mapping_that_cannot_be_reverted(
    checkpoint: Any, tmp_path: Path, mapping: dict[str, str]
) -> None:
    """SAV-1: the model loads, and is saved under its own names."""
    folder = checkpoint("llama-f32", "module-prefix")
    model = ours_of(LlamaForCausalLM)(folder, key_mapping=mapping)
    model.save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == model.state_dict().keys()


def test_a_mapping_of_two_names_to_one_loses_nothing(checkpoint: Any, tmp_path: Path) -> None:
    """SAV-3: reverted, it would write two tensors under one name."""
    mapping = {r"layers\.0\.input_layernorm": "layers.1.input_layernorm"}
    model = ours_of(LlamaForCausalLM)(checkpoint("llama-f32"), key_mapping=mapping)
    model.save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == model.state_dict().keys()
