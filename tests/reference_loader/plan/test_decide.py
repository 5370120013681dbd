"""Decisions as pure functions: inventory, match, ties, what is fresh. IDX-2, IDX-7, IDX-8, TIE."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from reference_loader.errors import NothingMatches, ShapeMismatch
from reference_loader.formats.stored import Format, StoredTensor
from reference_loader.model.skeleton import Skeleton, Slot, build
from reference_loader.options import Options
from reference_loader.plan import decide
from reference_loader.plan.decisions import Inventory, Mismatch
from reference_loader.plan.inventory import take_inventory
from reference_loader.plan.names import mapping_renames
from reference_loader.source.checkpoint import locate

quick = settings(max_examples=60, deadline=None, derandomize=True)


def stored(*keys: str, shape: tuple[int, ...] = (2,)) -> dict[str, StoredTensor]:
    return {
        key: StoredTensor(key, Path("file"), torch.float32, shape, 8 * i, 8 * i + 8, Format.PICKLE)
        for i, key in enumerate(keys)
    }


def room(*names: str) -> Skeleton:
    """A model whose slots are these, each of two elements."""
    slots = {n: Slot(n, "parameter", torch.float32, (2,), i) for i, n in enumerate(names)}
    return Skeleton(nn.Module(), slots, (), {})


def matched(held: dict[str, StoredTensor], skeleton: Skeleton, **more: Any) -> dict[str, str]:
    found = decide.match(held, skeleton, more.get("prefix", ""), more.get("renames", ()), ())
    return {p.target: p.stored.key for p in found.placements}


# --- the inventory ---


def inventory(folder: Path) -> Inventory:
    return take_inventory(locate(folder, Options()))


def test_where_shards_agree_with_the_index_there_is_nothing_to_say(checkpoint: Any) -> None:
    for recipe in ("llama-f32", "llama-f32-3"):
        found = inventory(checkpoint(recipe))
        assert len(found.stored) == 30
        assert not (found.duplicates or found.unlisted or found.phantom)


@pytest.mark.parametrize("recipe", ["llama-f32-2", "llama-f32-3", "llama-f32-7"])
def test_the_index_decides_between_copies(checkpoint: Any, recipe: str) -> None:
    """IDX-2: though the stray copy lies in a later shard; both files are named."""
    key = "model.layers.0.input_layernorm.weight"
    folder = checkpoint(recipe, "stray-duplicate")
    found = inventory(folder)
    files = sorted(folder.glob("*.safetensors"))
    assert found.stored[key].file in files[:-1]
    assert found.duplicates == {key: (found.stored[key].file, files[-1])}


def test_without_a_listing_the_later_copy_is_taken(own: Any) -> None:
    """IDX-8: a key in two shards that the index does not list."""
    folder = own("llama-f32-2", "stray-duplicate")
    index = folder / "model.safetensors.index.json"
    key = "model.layers.0.input_layernorm.weight"
    lines = [line for line in index.read_text().splitlines(keepends=True) if key not in line]
    index.write_text("".join(lines))
    found = inventory(folder)
    assert found.unlisted == {key}
    assert found.stored[key].file.name == "model-00002-of-00002.safetensors"


def test_index_and_shards_disagree(checkpoint: Any) -> None:
    """IDX-7, IDX-8."""
    unlisted = inventory(checkpoint("llama-f32-2", "unlisted-key"))
    assert unlisted.unlisted == {"model.norm.weight"} <= unlisted.stored.keys()
    phantom = inventory(checkpoint("llama-f32-2", "phantom-key"))
    key = "model.layers.0.mlp.gate_proj.weight"
    assert phantom.phantom == {key}
    assert key not in phantom.stored


# --- the match ---


@pytest.mark.parametrize("order", list(itertools.permutations(["w", "model.w", "old.w"])), ids=str)
def test_of_two_keys_for_one_slot_its_own_name_wins(order: tuple[str, ...]) -> None:
    """Wherever in the file it stands."""
    renames = mapping_renames({"^old": "model"})
    found = matched(stored(*order), room("model.w"), prefix="model", renames=renames)
    assert found == {"model.w": "model.w"}


@pytest.mark.parametrize("order", [("w", "old.w"), ("old.w", "w")], ids=str)
def test_else_the_first_by_name_wins(order: tuple[str, ...]) -> None:
    """Whatever their order in the file, so that sharding decides nothing."""
    renames = mapping_renames({"^old": "model"})
    found = matched(stored(*order), room("model.w"), prefix="model", renames=renames)
    assert found == {"model.w": "old.w"}


def test_what_has_no_slot_is_unexpected_and_what_has_no_room_mismatched() -> None:
    """MAP-4, MIS-4: and neither is placed."""
    held = stored("a", "extra") | stored("b", shape=(1, 2))
    found = decide.match(held, room("a", "b", "c"), "", (), ())
    assert [p.target for p in found.placements] == ["a"]
    assert found.unexpected == {"extra"}
    assert found.mismatched == (Mismatch("b", (1, 2), (2,), Path("file")),)


def test_a_scalar_is_no_vector_of_one() -> None:
    """MIS-4: shapes are compared, not sizes."""
    slots = {"a": Slot("a", "parameter", torch.float32, ())}
    held = stored("a", shape=(1,))
    assert decide.match(held, Skeleton(nn.Module(), slots, (), {}), "", (), ()).mismatched


def test_nothing_matches_only_if_something_could() -> None:
    """MAP-7: an empty file, or a model without tensors, is another matter."""
    with pytest.raises(NothingMatches) as raised:
        decide.match(stored("x.a"), room("a"), "", (), ())
    assert "'x.a'" in str(raised.value)
    assert "'a'" in str(raised.value)
    assert decide.match({}, room("a"), "", (), ()).placements == ()
    assert decide.match(stored("a"), room(), "", (), ()).unexpected == {"a"}


def test_a_kept_module_is_placed_in_float32() -> None:
    """DTY-9."""
    slots = {n: Slot(n, "parameter", torch.bfloat16, (2,)) for n in ("norm.w", "other.w")}
    found = decide.match(
        stored("norm.w", "other.w"), Skeleton(nn.Module(), slots, (), {}), "", (), {"norm"}
    )
    assert [p.dtype for p in found.placements] == [torch.float32, torch.bfloat16]


def test_refuse_mismatches_names_each_with_both_shapes() -> None:
    """MIS-4."""
    decide.refuse_mismatches(())
    several = [Mismatch(n, (1,), (2, 3), Path("f.safetensors")) for n in ("one", "two")]
    with pytest.raises(ShapeMismatch) as raised:
        decide.refuse_mismatches(several)
    for part in ("one: [1]", "two: [1]", "[2, 3]", "f.safetensors", "ignore_mismatched_sizes"):
        assert part in str(raised.value)


# --- ties ---

groups_and_filled = st.lists(st.integers(1, 4), max_size=3).flatmap(
    lambda sizes: st.tuples(
        st.just([tuple(f"{g}.{i}" for i in range(size)) for g, size in enumerate(sizes)]),
        st.sets(st.sampled_from([f"{g}.{i}" for g in range(3) for i in range(4)])),
    )
)


@quick
@given(case=groups_and_filled)
def test_ties_put_a_stored_name_first_and_lose_none(
    case: tuple[list[tuple[str, ...]], set[str]],
) -> None:
    """TIE-1, TIE-2, TIE-4, TIE-7, for groups of any size."""
    groups, filled = case
    ties = decide.decide_ties(groups, filled)
    assert [set(group) for group in ties.groups] == [set(group) for group in groups]
    for before, after in zip(groups, ties.groups, strict=True):
        held = [name for name in before if name in filled]
        assert after[0] == (held or before)[0]
        assert {n: f for n, f in ties.rivals.items() if n in before} == dict.fromkeys(
            held[1:], after[0]
        )
        assert set(before) <= ties.provided if held else not set(before) & ties.provided


def fresh_of(skeleton: Skeleton, lacking: Iterable[str], filled: Iterable[str]) -> set[str]:
    ties = decide.decide_ties(skeleton.ties, set(filled))
    return set(decide.decide_fresh(skeleton.slots, set(lacking), ties, ()))


class Tied(nn.Module):
    """Two tied linears, a third, and a persistent buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Linear(2, 2, bias=False) for _ in range(3))
        self.two.weight = self.one.weight
        self.register_buffer("steps", torch.zeros(1))


def test_fresh_is_one_of_a_tie_and_never_a_buffer() -> None:
    """TIE-7, MIS-1: what a tie provides is not made anew."""
    skeleton = build(Tied, torch.float32)
    every = set(skeleton.slots)
    assert fresh_of(skeleton, every, ()) == {"one.weight", "three.weight"}
    assert fresh_of(skeleton, every - {"two.weight"}, ["two.weight"]) == {"three.weight"}
    assert fresh_of(skeleton, every - {"one.weight"}, ["one.weight"]) == {"three.weight"}
    assert fresh_of(skeleton, (), every) == set()
