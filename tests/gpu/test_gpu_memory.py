"""What a load takes of the GPU: while it runs, afterwards, and after it failed."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reference_loader import from_pretrained

pytestmark = pytest.mark.gpu

DTYPES = ("float16", "bfloat16", "float32")

# On top of the model, while it is loaded.
MOST_BESIDE = 200 * 10**6


def size_there(model: nn.Module) -> int:
    """Bytes of the tensors that the model has on the first GPU."""
    named = [*model.parameters(), *model.buffers()]
    storages = {t.untyped_storage().data_ptr(): t.nbytes for t in named if t.device.index == 0}
    return sum(storages.values())


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_held_is_the_model(
    medium: Path, held: Callable[[], int], dtype: str, record_property: Any
) -> None:
    """After the load, and nothing once the model is let go; a cast leaves no second copy."""
    before = held()
    torch.cuda.reset_peak_memory_stats(0)
    model = from_pretrained(medium, dtype=dtype, device_map=0)
    peak, wanted = torch.cuda.max_memory_allocated(0) - before, size_there(model)
    record_property("peak", peak)
    assert held() - before == wanted
    assert peak <= wanted + MOST_BESIDE
    del model
    assert held() == before


def test_every_tensor_is_there(medium: Path) -> None:
    """Parameters, and the buffers that no file holds."""
    model = from_pretrained(medium, device_map="cuda")
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert any(name.endswith("inv_freq") for name in tensors)
    assert {str(tensor.device) for tensor in tensors.values()} == {"cuda:0"}


def test_hooks_are_where_something_moves(medium: Path, held: Callable[[], int]) -> None:
    """One device needs none; with a layer on the CPU the GPU holds all but that layer."""
    whole = from_pretrained(medium, device_map=0)
    assert not any(hasattr(module, "_hf_hook") for module in whole.modules())
    layer, all_of_it = size_there(whole.model.layers[1]), size_there(whole)
    del whole
    before = held()
    places = dict.fromkeys(("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"), 0)
    places |= {"model.layers.0": 0, "model.layers.1": "cpu"}
    split = from_pretrained(medium, device_map=places)
    assert hasattr(split.model.layers[1].mlp.up_proj, "_hf_hook")
    assert split.hf_device_map == places
    # A layer that waits on the CPU has nothing on the GPU but what accelerate moves there.
    assert all_of_it - layer <= held() - before < all_of_it


def test_a_load_that_fails_midway_leaves_nothing(
    medium: Path, held: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails at the eighth read."""
    before, read, calls = held(), os.preadv, count(1)

    def failing(*given: Any) -> int:
        if next(calls) >= 8:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(*given)

    torch.cuda.reset_peak_memory_stats(0)
    monkeypatch.setattr(os, "preadv", failing)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        from_pretrained(medium, device_map=0)
    assert torch.cuda.max_memory_allocated(0) > before + 10**7, "some of it was there"
    monkeypatch.undo()
    assert held() == before


def test_a_load_for_which_there_is_no_memory_leaves_nothing(
    medium: Path, held: Callable[[], int]
) -> None:
    """Torch's own error, and the GPU as before."""
    torch.cuda.empty_cache()
    before = held()
    room = torch.cuda.memory_reserved(0) + 50 * 10**6  # of 84 MB
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(room / whole, 0)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            from_pretrained(medium, device_map=0)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 0)
    assert held() == before
    gc.collect()
    assert from_pretrained(medium, device_map=0).device == torch.device("cuda", 0)
