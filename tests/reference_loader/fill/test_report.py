"""What the caller and the log are told. INF-1 to INF-6, TIE-4."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from transformers import LlamaForCausalLM, LlamaModel

from reference_loader import from_pretrained
from reference_loader.errors import NotStrict
from reference_loader.llama import Llama

NORM = "model.norm.weight"
EXTRA = "model.layers.0.extra.weight"
UP = "model.layers.0.mlp.up_proj.weight"

DISAGREEMENTS = {
    "missing": ("llama-f32", "missing-norm", NORM),
    "unexpected": ("llama-f32", "unexpected-key", EXTRA),
    "mismatched": ("llama-f32", "wrong-shape", UP),
    "stored twice": ("llama-f32-2", "stray-duplicate", "model.layers.0.input_layernorm.weight"),
    "not in the index": ("llama-f32-2", "unlisted-key", NORM),
    "only in the index": ("llama-f32-2", "phantom-key", "model.layers.0.mlp.gate_proj.weight"),
}


@pytest.mark.parametrize("kind", DISAGREEMENTS)
def test_strict_refuses_each_kind_by_name(checkpoint: Any, unchanged: Any, kind: str) -> None:
    """INF-6, STA-2: before anything is read or drawn."""
    recipe, fault, key = DISAGREEMENTS[kind]
    folder = checkpoint(recipe, fault)
    with unchanged(folder), pytest.raises(NotStrict) as raised:
        from_pretrained(folder, strict=True, ignore_mismatched_sizes=True)
    assert f"{kind}: {key}" in str(raised.value)
    assert str(folder) in str(raised.value)


def test_strict_names_several_kinds_at_once(checkpoint: Any) -> None:
    """INF-6."""
    folder = checkpoint("llama-f32", "missing-norm", "unexpected-key", "wrong-shape")
    with pytest.raises(NotStrict) as raised:
        from_pretrained(folder, strict=True)
    assert [key for key in (NORM, EXTRA, UP) if key not in str(raised.value)] == []


@pytest.mark.parametrize(
    "recipe", ["llama-f32", "llama-f32-7", "llama-tied-embedding", "llama-tied-head"]
)
def test_strict_takes_what_is_exactly_the_model(checkpoint: Any, recipe: str) -> None:
    """INF-6: a tie is no missing key."""
    from_pretrained(checkpoint(recipe), strict=True)


def test_strict_refuses_two_keys_for_one_slot(own: Any) -> None:
    """INF-6: one of the two would be dropped without a word."""
    from conformance_fixtures.faults.read_and_edit import edited

    folder = own("llama-f32")
    with edited(folder) as weights:
        weights.add("norm.weight", weights.tensors[NORM] * 2, weights.last)
    with pytest.raises(NotStrict, match=r"norm\.weight"):
        from_pretrained(folder, strict=True)


def test_the_info_has_stocks_fields_and_containers(checkpoint: Any) -> None:
    """INF-1, INF-5."""
    folder = checkpoint("llama-f32-2", "missing-norm", "unexpected-key", "wrong-shape")
    options = {"ignore_mismatched_sizes": True, "output_loading_info": True}
    _, info = from_pretrained(folder, **options)
    _, theirs = LlamaForCausalLM.from_pretrained(folder, **options)
    assert info == theirs
    assert {k: type(v) for k, v in info.items()} == {k: type(v) for k, v in theirs.items()}
    assert info == {
        "missing_keys": {NORM},
        "unexpected_keys": {EXTRA},
        "mismatched_keys": {(UP, (63, 32), (64, 32))},
        "error_msgs": [],
    }


def test_without_asking_there_is_the_model_alone(checkpoint: Any) -> None:
    """INF-4."""
    assert isinstance(from_pretrained(checkpoint("llama-f32")), LlamaForCausalLM)


@pytest.mark.parametrize("model_class", [LlamaForCausalLM, Llama])
def test_left_over_frequencies_are_not_reported(
    checkpoint: Any, caplog: Any, model_class: Any
) -> None:
    """MAP-5."""
    folder = checkpoint("llama-f32", "leftover-inv-freq")
    with caplog.at_level(logging.WARNING, "reference_loader"):
        _, info = from_pretrained(folder, model_class=model_class, output_loading_info=True)
    assert info["unexpected_keys"] == set()
    assert caplog.text == ""


def test_one_warning_names_everything(checkpoint: Any, caplog: Any) -> None:
    folder = checkpoint("llama-tied-separate", "unexpected-key", "missing-norm")
    from_pretrained(folder)
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("reference_loader")]
    assert len(ours) == 1
    for part in (str(folder), EXTRA, NORM, "lm_head.weight", "not tied"):
        assert part in ours[0]


def test_nothing_is_said_where_nothing_is_to_say(checkpoint: Any, caplog: Any) -> None:
    from_pretrained(checkpoint("llama-f32"))
    assert [r for r in caplog.records if r.name.startswith("reference_loader")] == []


def test_base_and_head(checkpoint: Any) -> None:
    """MAP-2, MAP-3, as stock reports them."""
    for folder, model_class in (
        (checkpoint("llama-f32"), LlamaModel),
        (checkpoint("llama-base"), LlamaForCausalLM),
    ):
        _, info = from_pretrained(folder, model_class=model_class, output_loading_info=True)
        _, theirs = model_class.from_pretrained(folder, output_loading_info=True)
        assert info == theirs
        assert info["missing_keys" if model_class is LlamaForCausalLM else "unexpected_keys"] == {
            "lm_head.weight"
        }


@pytest.mark.parametrize("there", [True, False])
def test_an_adapter_beside_the_weights_is_told(
    own: Any, there: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not applied, and nothing else would say so."""
    folder = own("llama-f32")
    if there:
        (folder / "adapter_config.json").write_text("{}", "utf-8")
    with caplog.at_level(logging.WARNING, "reference_loader"):
        from_pretrained(folder)
    assert ("adapter, which was not applied" in caplog.text) == there
