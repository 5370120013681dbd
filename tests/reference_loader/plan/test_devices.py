"""PLC-1 to PLC-3, PLC-5: where each tensor goes, decided before anything is placed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate.utils import get_balanced_memory, get_max_memory, infer_auto_device_map
from transformers import AutoConfig, LlamaForCausalLM

from reference_loader import from_pretrained, plan
from reference_loader.errors import BadOptions, MetaDevice
from reference_loader.plan.devices import (
    check,
    check_disk,
    memory_device,
    needs_hooks,
    place,
    requested,
)

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("asked", "map_"),
    [
        (None, None),
        ("cpu", {"": CPU}),
        (CPU, {"": CPU}),
        ("cuda:1", {"": CUDA}),
        (1, {"": CUDA}),
        ({"a": "cpu", "a.b": 1}, {"a": "cpu", "a.b": 1}),
        ("auto", "auto"),
        ("sequential", "sequential"),
    ],
    ids=repr,
)
def test_what_is_asked_for(asked: Any, map_: Any) -> None:
    """PLC-1."""
    assert requested(asked, CPU) == map_


@pytest.mark.parametrize(
    "asked", ["gpu5", -1, True, 1.5, {"a": "gpu5"}, {"a": -1}, ["cpu"]], ids=repr
)
def test_what_is_no_device(asked: Any) -> None:
    """PLC-2."""
    with pytest.raises(BadOptions, match="device_map"):
        requested(asked, CPU)


def test_the_default_device() -> None:
    assert requested(None, CUDA) == {"": CUDA}
    assert requested("cpu", CUDA) == {"": CPU}
    with pytest.raises(MetaDevice):
        requested(None, torch.device("meta"))


def test_the_longest_module_name_wins() -> None:
    """PLC-1."""
    places = {"": "cpu", "model": 1, "model.norm": "disk"}
    assert place("lm_head.weight", places) == CPU
    assert place("model.layers.0.weight", places) == CUDA
    assert place("model.norm.weight", places) == "disk"
    assert memory_device("model.norm.weight", places) == CPU
    assert place("model.normal.weight", places) == CUDA, "a module, not a prefix of text"
    assert place("x", None) == CPU


def test_holes_are_named() -> None:
    """PLC-3."""
    check({"": "cpu"}, ["a", "b.c"])
    with pytest.raises(BadOptions, match=r"b\.c"):
        check({"a": "cpu"}, ["a.x", "b.c"])


@pytest.mark.parametrize(
    "places",
    [
        {"": "disk"},
        {"a": "disk", "b": "cpu"},
        {"a": "disk", "a.x": "disk", "b": "cpu"},
        {"a": "cpu", "a.x": "cpu", "b": "disk"},
    ],
    ids=str,
)
def test_a_disk_that_modules_can_read_from(places: Any) -> None:
    """PLC-9."""
    check_disk(places, ["a.x", "a.y", "b.z"], [("a.x", "a.y")])


@pytest.mark.parametrize(
    ("places", "named"),
    [
        ({"a": "cpu", "a.x": "disk", "b": "cpu"}, r"'a\.x' and its module"),
        ({"a": "disk", "a.x": "cpu", "b": "cpu"}, r"'a\.x' and its module"),
        ({"a.x": "disk", "a.y": "disk", "b": "cpu"}, r"'a\.[xy]' and its module"),
        ({"a": "cpu", "b": "disk"}, r"tied weights a\.x, b\.z"),
        ({"a": "disk", "b": "cpu"}, r"tied weights a\.x, b\.z"),
    ],
    ids=str,
)
def test_a_disk_that_no_module_could_read_from(places: Any, named: str) -> None:
    """PLC-9: a parameter apart from its module, and one parameter in two places."""
    with pytest.raises(BadOptions, match=named):
        check_disk(places, ["a.x", "a.y", "b.z"], [("a.x", "b.z")])


def test_hooks_are_needed_where_something_moves() -> None:
    """PLC-4."""
    assert not needs_hooks(None)
    assert not needs_hooks({"a": "cpu", "b": CPU})
    assert needs_hooks({"a": "cpu", "b": "disk"})
    assert needs_hooks({"": "disk"})
    assert needs_hooks({"a": 0, "b": 1})


@pytest.mark.parametrize("mode", ["auto", "balanced", "balanced_low_0", "sequential"])
@pytest.mark.parametrize(
    "budgets",
    [{0: 60_000, 1: 80_000, "cpu": 10**9}, {0: 60_000, "cpu": 50_000}],
    ids=["two-gpus", "spills-to-disk"],
)
@pytest.mark.parametrize("recipe", ["llama-f32-2", "llama-bf16", "llama-tied-embedding"])
def test_the_plan_has_the_map_that_accelerate_infers(
    checkpoint: Any, recipe: str, budgets: Any, mode: str
) -> None:
    """PLC-5: for accelerators that are not there; nothing is placed."""
    folder = checkpoint(recipe)
    dtype = torch.bfloat16 if "bf16" in recipe else torch.float32
    budgets = {name: size * dtype.itemsize // 4 for name, size in budgets.items()}
    with torch.device("meta"):
        model = LlamaForCausalLM(AutoConfig.from_pretrained(folder)).to(dtype)
    model.tie_weights()
    whole = sorted(model._no_split_modules)
    low_zero = mode == "balanced_low_0"
    memory = (
        get_max_memory(dict(budgets))
        if mode == "sequential"
        else get_balanced_memory(
            model, dict(budgets), no_split_module_classes=whole, low_zero=low_zero
        )
    )
    expected = infer_auto_device_map(model, memory, no_split_module_classes=whole)
    found = plan(folder, device_map=mode, max_memory=budgets)
    assert found.device_map == expected
    assert len({str(where) for where in expected.values()}) > 1, "the budgets force a split"
    for placement in found.placements:
        assert str(placement.device) == str(place(placement.target, expected))


def test_a_plan_tells_the_places(checkpoint: Any) -> None:
    text = str(plan(checkpoint("llama-f32"), device_map={"model": "cpu", "lm_head": "disk"}))
    assert "cpu  model" in text
    assert "disk  lm_head" in text


def test_under_the_meta_device_there_is_nothing_to_load_into(checkpoint: Any) -> None:
    folder = checkpoint("llama-f32")
    with torch.device("meta"), pytest.raises(RuntimeError, match="meta"):
        from_pretrained(folder)
    with torch.device("meta"):
        model = from_pretrained(folder, device_map="cpu")
    assert {tensor.device for tensor in model.state_dict().values()} == {CPU}


@pytest.mark.parametrize(
    ("device_map", "budgets", "refused"),
    [
        ("cpu", {"cpu": 144_255}, True),
        ("cpu", {"cpu": 144_256}, False),
        ("cpu", {"cpu": "100KB", 0: 10**9}, True),
        ({"model": "cpu", "lm_head": "disk"}, {"cpu": 127_872}, False),
        ({"model": "cpu", "lm_head": "disk"}, {"cpu": 127_871}, True),
        ("cpu", None, False),
        (None, {"cpu": 1}, False),
        ("auto", {"cpu": 100_000}, False),
    ],
    ids=str,
)
def test_a_map_over_its_budget(
    checkpoint: Any, tmp_path: Any, device_map: Any, budgets: Any, refused: bool
) -> None:
    """PLC-10: the load is refused, and the plan still tells where everything would go."""
    folder = checkpoint("llama-f32-2")
    options = {"device_map": device_map, "max_memory": budgets, "offload_folder": tmp_path}
    assert plan(folder, **options).placements
    if refused:
        with pytest.raises(BadOptions, match=r"bytes on cpu; max_memory allows [\d,]+.*auto"):
            from_pretrained(folder, **options)
    else:
        from_pretrained(folder, **options)


@pytest.mark.parametrize("where", ["cuda", "cuda:0", 0, torch.device("cuda")], ids=repr)
def test_a_gpu_over_its_budget_needs_no_gpu_to_be_refused(checkpoint: Any, where: Any) -> None:
    """PLC-10: before a weight is read, and by whatever name it goes."""
    with pytest.raises(BadOptions, match="144,256 bytes on cuda:0; max_memory allows 100,000"):
        from_pretrained(checkpoint("llama-f32-2"), device_map=where, max_memory={0: 100_000})
