"""From checkpoint keys to model keys. MAP-1 to MAP-3, MAP-5, MAP-6, MAP-8."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_loader.plan.names import common_prefix, ignored, mapping_renames, resolve

quick = settings(max_examples=60, deadline=None, derandomize=True)
parts = st.sampled_from(["model", "head", "a", "b", "weight"])
names = st.lists(parts, min_size=1, max_size=4).map(".".join)
prefixes = st.sampled_from(["", "model", "a"])


@quick
@given(keys=st.sets(names), model=st.sets(names), prefix=prefixes)
def test_a_name_of_the_model_is_itself(keys: set[str], model: set[str], prefix: str) -> None:
    """MAP-1: an exact name wins over any prefix."""
    resolved = resolve(keys, model, prefix).targets
    assert resolved.keys() == keys
    assert all(resolved[key] == key for key in keys & model)


@quick
@given(keys=st.sets(names), model=st.sets(names), prefix=prefixes)
def test_resolving_twice_is_resolving_once(keys: set[str], model: set[str], prefix: str) -> None:
    once = set(resolve(keys, model, prefix).targets.values())
    assert set(resolve(once, model, prefix).targets.values()) == once


@quick
@given(base=st.sets(names, min_size=1), head=st.just("lm_head.weight"))
def test_the_prefix_is_added_and_taken_away(base: set[str], head: str) -> None:
    """MAP-2, MAP-3: base checkpoint to head model and back, for names that need no luck."""
    base = {f"x.{name}" for name in base}
    with_head = {f"model.{name}" for name in base} | {head}
    assert resolve(base, with_head, "model").targets == {name: f"model.{name}" for name in base}
    assert resolve(with_head, base, "model").targets == {
        **{f"model.{name}": name for name in base},
        head: head,
    }


@quick
@given(keys=st.sets(names), model=st.sets(names))
def test_without_a_prefix_nothing_is_added(keys: set[str], model: set[str]) -> None:
    assert resolve(keys, model, "").targets == {key: key for key in keys}


def test_a_name_with_no_place_keeps_its_renamed_name() -> None:
    """INF-3: what is reported unexpected."""
    assert resolve(["old.x"], {"new.y"}, "model", mapping_renames({"^old": "new"})).targets == {
        "old.x": "new.x"
    }


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("LayerNorm.gamma", "LayerNorm.weight"),
        ("a.LayerNorm.beta", "a.LayerNorm.bias"),
        ("conv.weight_g", "conv.parametrizations.weight.original0"),
        ("conv.weight_v", "conv.parametrizations.weight.original1"),
    ],
)
def test_legacy_names(key: str, name: str) -> None:
    """MAP-8: taken where the model has the new name, also below the prefix, else left alone."""
    assert resolve([key], {name}, "").targets == {key: name}
    assert resolve([key], {f"model.{name}"}, "model").targets == {key: f"model.{name}"}
    assert resolve([key], {key}, "").targets == {key: key}


def test_key_mapping_renames_by_regular_expression_in_turn() -> None:
    """MAP-6: before the prefix is looked at, groups included."""
    mapping = {r"^layer_(\d+)": r"layers.\1", r"layers\.1$": "layers.2"}
    model = {"model.layers.0", "model.layers.2"}
    assert resolve(["layer_0", "layer_1"], model, "model", mapping_renames(mapping)).targets == {
        "layer_0": "model.layers.0",
        "layer_1": "model.layers.2",
    }


def test_no_mapping_is_no_rename() -> None:
    assert mapping_renames(None) == mapping_renames({}) == []


def test_ignored_finds_a_pattern_anywhere() -> None:
    """MAP-5."""
    keys = {"a.rotary_emb.inv_freq", "b.position_ids", "c.weight"}
    assert ignored(keys, [r"rotary_emb\.inv_freq", r"(^|\.)position_ids$"]) == keys - {"c.weight"}
    assert ignored(keys, []) == set()


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        (["_orig_mod.model.a", "_orig_mod.model.b"], "_orig_mod."),
        (["_orig_mod.module.model.a"], "_orig_mod.module."),
        (["_orig_mod.a", "_orig_mod.b"], "_orig_mod."),
        (["_orig_mod.model.a", "head"], ""),
        (["x.c", "x.d"], ""),
        ([], ""),
    ],
)
def test_what_all_keys_begin_with_is_told(keys: list[str], found: str) -> None:
    assert common_prefix(keys, {"model.a", "model.b"}, "model") == found
