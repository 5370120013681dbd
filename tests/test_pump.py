"""Reading, casting and placing. MAP-1, DTY-7, and the memory it takes."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures.edit import read_weights
from fixtures.files import SAFETENSORS_DTYPES, write_safetensors
from reference_loader import from_pretrained, plan
from reference_loader.llama import Llama

MIB = 2**20
REAL = [dtype for dtype in SAFETENSORS_DTYPES if not dtype.is_complex]
LARGE = 200 * MIB
EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture
def sparse(own: Any, stretch: Any) -> Path:
    """A tied Llama whose 200 MiB embedding is a hole in the file."""
    folder: Path = own("llama-tied-embedding", vocab_size=LARGE // 4 // 32)
    path = folder / "model.safetensors"
    tensors = read_weights(folder).tensors
    del tensors[EMBEDDING]
    stretch(path, tensors, {EMBEDDING: ("F32", [LARGE // 4 // 32, 32], LARGE)})
    return folder


def anonymous() -> int:
    """Bytes of this process's anonymous memory."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


def test_weights_of_the_own_dtype_take_no_memory(sparse: Path) -> None:
    """Views of the mapped file: 200 MiB are loaded, and touched, and none of it is anonymous."""
    before = anonymous()
    model = from_pretrained(sparse, model_class=Llama)
    weight = model.model.embed_tokens.weight
    assert weight.count_nonzero() == 0
    assert weight.numel() * 4 == LARGE
    assert anonymous() - before < 20 * MIB
    with torch.no_grad():
        weight[:1000] = 1.0  # private pages: only what is written
    assert anonymous() - before < 24 * MIB


def test_a_cast_takes_the_memory_of_its_result(sparse: Path) -> None:
    """DTY-7: half of the file in float16, and nothing of the source stays."""
    before = anonymous()
    model = from_pretrained(sparse, model_class=Llama, dtype="float16")
    assert model.lm_head.weight.dtype == torch.float16
    assert LARGE // 2 - 4 * MIB < anonymous() - before < LARGE // 2 + 20 * MIB


def test_changing_the_model_does_not_change_the_file(own: Any) -> None:
    folder = own("llama-f32-2")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    model = from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(3.0)
    again = from_pretrained(folder)
    assert all(p.unique().tolist() != [3.0] for p in again.parameters())
    del model, again
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_each_tensor_holds_its_own_storage_only(checkpoint: Any) -> None:
    """A tensor that is saved or shared drags no neighbour along."""
    model = from_pretrained(checkpoint("llama-f32"))
    for name, parameter in model.named_parameters():
        size = parameter.numel() * parameter.element_size()
        assert parameter.untyped_storage().nbytes() == size, name
        assert parameter.is_contiguous(), name
    starts = [p.data_ptr() for p in model.parameters()]
    assert len(set(starts)) == len(starts)


def test_the_model_outlives_its_folder(own: Any) -> None:
    """The mapping is the tensor's, not the directory's."""
    folder = own("llama-f32")
    model = from_pretrained(folder)
    held = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    (folder / "model.safetensors").unlink()
    assert all(torch.equal(t, held[k]) for k, t in model.state_dict().items())


def test_every_tensor_comes_from_its_own_place(checkpoint: Any) -> None:
    """MAP-1: bit for bit, one file or seven."""
    for recipe in ("llama-f32", "llama-f32-7", "llama-bf16-2"):
        folder = checkpoint(recipe)
        model = from_pretrained(folder).state_dict()
        stored = read_weights(folder).tensors
        assert model.keys() == stored.keys()
        assert all(torch.equal(model[k], stored[k]) for k in stored)


@pytest.mark.parametrize("wanted", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_each_value_is_rounded_once(checkpoint: Any, wanted: torch.dtype) -> None:
    """DTY-7: from the stored value, whatever the dtypes of the file."""
    folder = checkpoint("llama-mixed-2")
    stored = read_weights(folder).tensors
    model = from_pretrained(folder, dtype=wanted).state_dict()
    assert all(torch.equal(model[k], stored[k].to(wanted)) for k in stored)
    actions = {p.target: p.action for p in plan(folder, dtype=wanted).placements}
    assert actions == {k: "view" if t.dtype == wanted else "cast" for k, t in stored.items()}


def test_the_conversion_is_torchs(own: Any) -> None:
    """DTY-7: a float64 just above the middle of two bfloat16, which torch rounds by float32."""
    folder = own("llama-f32")
    tensors = read_weights(folder).tensors
    exact = torch.full((32,), 1 + 2**-8 + 2**-30, dtype=torch.float64)
    tensors["model.norm.weight"] = exact
    write_safetensors(folder / "model.safetensors", tensors)
    loaded = from_pretrained(folder, dtype="bfloat16").model.norm.weight
    assert torch.equal(loaded, exact.to(torch.bfloat16))


@pytest.mark.parametrize("dtype", REAL, ids=str)
def test_every_stored_dtype_can_be_cast_to_float(own: Any, dtype: torch.dtype) -> None:
    """MAP-1, DTY-7: integers and float8 in a float parameter."""
    folder = own("llama-f32")
    tensors = read_weights(folder).tensors
    tensors["model.norm.weight"] = torch.ones(32).to(dtype)
    write_safetensors(folder / "model.safetensors", tensors)
    loaded = from_pretrained(folder).model.norm.weight
    assert (loaded.dtype, loaded.tolist()) == (torch.float32, [1.0] * 32)
