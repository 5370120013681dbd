"""OFF-1 to OFF-5: weights that stay on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reference_loader import from_pretrained, plan
from reference_loader.errors import BadOptions, LoadError
from reference_loader.fill.offload import Offloaded, place_fresh

PROMPT = torch.tensor([[3, 10, 17, 24]])
HEAD = {"model": "cpu", "lm_head": "disk"}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(PROMPT).logits


@pytest.mark.parametrize("device_map", [HEAD, {"": "disk"}, {"model": "disk", "lm_head": "cpu"}])
@pytest.mark.parametrize("recipe", ["llama-f32-3", "llama-bf16", "llama-tied-head"])
@pytest.mark.parametrize("dtype", ["auto", "float16"])
def test_computes_as_in_memory(
    checkpoint: Any, tmp_path: Path, recipe: str, device_map: Any, dtype: str
) -> None:
    folder = checkpoint(recipe)
    if "tied" in recipe and len(device_map) > 1:
        with pytest.raises(BadOptions, match=r"model\.embed_tokens\.weight, lm_head\.weight"):
            from_pretrained(folder, device_map=device_map, offload_folder=tmp_path, dtype=dtype)
        return
    model = from_pretrained(folder, device_map=device_map, offload_folder=tmp_path, dtype=dtype)
    assert torch.equal(logits(model), logits(from_pretrained(folder, dtype=dtype)))
    assert torch.equal(logits(model), logits(model)), "and again"


def test_what_lies_in_safetensors_is_not_written_again(checkpoint: Any, tmp_path: Path) -> None:
    folder = tmp_path / "offload"
    from_pretrained(checkpoint("llama-f32-2"), device_map=HEAD, offload_folder=folder)
    assert not folder.exists()
    from_pretrained(checkpoint("llama-f32-2"), device_map=HEAD)  # no folder is needed either


def test_what_lies_in_a_pickle_is_written(checkpoint: Any, tmp_path: Path) -> None:
    """OFF-3."""
    source, folder = checkpoint("llama-f32", "pickled"), tmp_path / "offload"
    with pytest.raises(BadOptions, match=r"lm_head\.weight.*offload_folder"):
        from_pretrained(source, device_map=HEAD)
    model = from_pretrained(source, device_map=HEAD, offload_folder=folder)
    assert [path.name for path in folder.glob("*.dat")] == ["lm_head.weight.dat"]
    assert torch.equal(logits(model), logits(from_pretrained(source)))


def test_a_missing_weight_is_initialised_and_written(checkpoint: Any, tmp_path: Path) -> None:
    """OFF-5: the same numbers as in memory."""
    folder = checkpoint("llama-untied-embedding")
    torch.manual_seed(3)
    offloaded = from_pretrained(folder, device_map=HEAD, offload_folder=tmp_path)
    torch.manual_seed(3)
    assert torch.equal(logits(offloaded), logits(from_pretrained(folder)))


@pytest.mark.parametrize(
    ("recipe", "faults"),
    [("llama-tied-head", ("pickled",)), ("llama-tied-neither", ())],
    ids=["pickled", "missing"],
)
def test_a_tied_weight_that_is_written_is_found_under_both_names(
    checkpoint: Any, tmp_path: Path, recipe: str, faults: tuple[str, ...]
) -> None:
    """OFF-4, OFF-5: and neither name keeps it in memory."""
    folder = checkpoint(recipe, *faults)
    torch.manual_seed(3)
    model = from_pretrained(folder, device_map={"": "disk"}, offload_folder=tmp_path)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.lm_head.weight.is_meta
    torch.manual_seed(3)
    assert torch.equal(logits(model), logits(from_pretrained(folder)))


def test_two_different_tied_weights_stay_two(checkpoint: Any, tmp_path: Path) -> None:
    """TIE-4, OFF-4: they are on disk, and read to be compared."""
    folder = checkpoint("llama-tied-separate")
    model = from_pretrained(folder, device_map={"": "disk"}, offload_folder=tmp_path)
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    assert torch.equal(logits(model), logits(from_pretrained(folder)))


def test_the_map_is_told(checkpoint: Any, tmp_path: Path) -> None:
    """PLC-4."""
    folder = checkpoint("llama-f32")
    offloaded = from_pretrained(folder, device_map=HEAD, offload_folder=tmp_path)
    assert offloaded.hf_device_map == HEAD
    assert not hasattr(from_pretrained(folder, device_map="cpu"), "hf_device_map")


def test_a_disk_under_a_name_that_is_no_module_is_no_matter(
    checkpoint: Any, tmp_path: Path
) -> None:
    """PLC-7: nothing is on disk, and nothing is looked for there."""
    folder, places = checkpoint("llama-f32"), {"": "cpu", "head": "disk"}
    model = from_pretrained(folder, device_map=places, offload_folder=tmp_path)
    assert torch.equal(logits(model), logits(from_pretrained(folder)))


def test_what_accelerate_cannot_place_is_a_load_error(checkpoint: Any, tmp_path: Path) -> None:
    nested = {"": "cpu", "model.layers": "disk"}
    with pytest.raises(LoadError, match=r"model\.layers"):
        from_pretrained(checkpoint("llama-f32"), device_map=nested, offload_folder=tmp_path)


def test_buffers_go_where_the_plan_says_and_one_that_modules_share_stays_one(
    checkpoint: Any,
) -> None:
    """`meta` stands for a GPU; the plan knows nothing of a buffer registered later."""
    folder = checkpoint("llama-f32")
    model = from_pretrained(folder)
    layers = model.model.layers
    shared = torch.ones(3)
    for layer in layers:
        layer.register_buffer("shared", shared, persistent=False)
    elsewhere = torch.device("meta")
    there = replace(plan(folder), device_map={"": elsewhere}, buffers={}, fresh={})

    place_fresh(there, model, Offloaded(None))

    assert {buffer.device for buffer in model.buffers()} == {elsewhere}
    assert len({id(layer.shared) for layer in layers}) == 1
