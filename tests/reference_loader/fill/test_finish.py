"""Ties, evaluation mode, generation config. TIE-1 to TIE-7, OUT-4, CFG-4."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LlamaForCausalLM, LlamaModel

from reference_loader import from_pretrained
from reference_loader.llama import Llama

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
STORED = ("embedding", "head", "equal", "separate", "neither")


def is_tied(model: Any) -> bool:
    head, embedding = model.lm_head.weight, model.model.embed_tokens.weight
    assert (head is embedding) is (head.data_ptr() == embedding.data_ptr())
    return head is embedding


def recipe(tied: bool, stored: str) -> str:
    if not tied and stored == "separate":
        return "llama-f32"
    return f"llama-{'tied' if tied else 'untied'}-{stored}"


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("tied", [True, False])
def test_the_product_of_flag_and_stored(
    checkpoint: Any, same_models: Any, tied: bool, stored: str
) -> None:
    """TIE-1 to TIE-7: storage, missing keys, values; as stock does under the same seed."""
    folder = checkpoint(recipe(tied, stored))
    torch.manual_seed(0)
    model, info = from_pretrained(folder, output_loading_info=True)
    one = tied and stored != "separate"
    absent = {
        "embedding": set() if tied else {HEAD},
        "head": set() if tied else {EMBEDDING},
        "neither": {EMBEDDING, HEAD},
    }.get(stored, set())
    assert is_tied(model) is one
    assert info["missing_keys"] == absent
    assert model.config.tie_word_embeddings is tied
    torch.manual_seed(0)
    stock, theirs = LlamaForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert info == theirs
    same_models(model, stock)


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("tied", [True, False])
def test_the_same_for_a_model_without_transformers(
    checkpoint: Any, tied: bool, stored: str
) -> None:
    """TIE-1 to TIE-7: the rules are the loader's, not the library's."""
    model = from_pretrained(checkpoint(recipe(tied, stored)), model_class=Llama)
    assert is_tied(model) is (tied and stored != "separate")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_equal_where_cast_is_still_equal(checkpoint: Any, dtype: str) -> None:
    """TIE-3."""
    assert is_tied(from_pretrained(checkpoint("llama-tied-equal"), dtype=dtype))


class KeptHead(LlamaForCausalLM):
    """Keeps one name of a tie in float32."""

    _keep_in_fp32_modules = ["lm_head"]  # noqa: RUF012  the library's own form


def test_kept_on_one_side_of_a_tie_only(checkpoint: Any) -> None:
    """TIE-3, DTY-9: two dtypes cannot be one storage; stock leaves them apart as well."""
    folder = checkpoint("llama-tied-equal")
    model = from_pretrained(folder, model_class=KeptHead, dtype="float16")
    assert not is_tied(model)
    assert model.lm_head.weight.dtype == torch.float32


def test_a_tie_with_a_mismatch_is_provided_by_the_other(own: Any) -> None:
    """TIE-1, MIS-5: the head's shape is wrong, the embedding's right."""
    from conformance_fixtures.faults.read_and_edit import edited

    folder = own("llama-tied-equal")
    with edited(folder) as weights:
        weights.replace(HEAD, torch.zeros(3, 32))
        wanted = weights.tensors[EMBEDDING].clone()
    model, info = from_pretrained(folder, ignore_mismatched_sizes=True, output_loading_info=True)
    assert is_tied(model)
    assert torch.equal(model.lm_head.weight, wanted)
    assert info["mismatched_keys"] == {(HEAD, (3, 32), (128, 32))}
    assert info["missing_keys"] == set()


def test_both_mismatched_are_initialised_as_one(own: Any) -> None:
    """TIE-7, MIS-5."""
    folder = own("llama-tied-equal", vocab_size=64)
    model, info = from_pretrained(folder, ignore_mismatched_sizes=True, output_loading_info=True)
    assert is_tied(model)
    assert {name for name, *_ in info["mismatched_keys"]} == {EMBEDDING, HEAD}
    assert 0.01 < model.lm_head.weight.std() < 0.03


def test_every_module_evaluates(checkpoint: Any) -> None:
    """OUT-4."""
    for model_class in (None, Llama, LlamaModel):
        model = from_pretrained(checkpoint("llama-f32"), model_class=model_class)
        assert not any(module.training for module in model.modules())


def test_the_generation_config_is_the_files(checkpoint: Any) -> None:
    """CFG-4."""
    folder = checkpoint("llama-generation")
    held = json.loads((folder / "generation_config.json").read_text())
    ours = from_pretrained(folder).generation_config
    assert held.items() <= ours.to_dict().items()
    assert str(ours) == str(LlamaForCausalLM.from_pretrained(folder).generation_config)


def test_a_generation_config_that_is_passed_wins_and_stays(checkpoint: Any) -> None:
    """CFG-4, CFG-2."""
    given = GenerationConfig(max_new_tokens=3)
    before = given.to_dict()
    model = from_pretrained(checkpoint("llama-generation"), generation_config=given)
    assert model.generation_config.max_new_tokens == 3
    assert model.generation_config is not given
    assert given.to_dict() == before


def test_without_the_file_it_is_made_from_the_config(checkpoint: Any) -> None:
    """CFG-4."""
    folder = checkpoint("llama-f32")
    ours, stock = (
        load(folder).generation_config
        for load in (from_pretrained, LlamaForCausalLM.from_pretrained)
    )
    assert str(ours) == str(stock)
    assert ours.eos_token_id == 2
