"""FMT-4 to FMT-6: pickled files, the zip format and the legacy one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from conformance_fixtures.files import write_bin
from reference_loader import from_pretrained, plan
from reference_loader.errors import BadTensorFile, UnsafePickle
from reference_loader.formats.pickle import PickledFile, read_pickled_header

TENSORS = {
    "matrix": torch.arange(12.0).reshape(3, 4),
    "scalar": torch.tensor(7, dtype=torch.int64),
    "empty": torch.empty(0, 5, dtype=torch.bfloat16),
    "transposed": torch.arange(6.0).reshape(2, 3).T,
}


@pytest.mark.parametrize("legacy", [False, True])
def test_header_and_tensors(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "pytorch_model.bin"
    write_bin(path, TENSORS, legacy)
    header = read_pickled_header(path)
    opened = PickledFile(path)
    assert list(header) == list(TENSORS)
    for key, tensor in TENSORS.items():
        assert (header[key].dtype, header[key].shape) == (tensor.dtype, tuple(tensor.shape))
        assert torch.equal(opened.view(header[key]), tensor)


def test_what_is_no_tensor_is_listed_and_cannot_be_taken(tmp_path: Path) -> None:
    """FMT-15: so that it is reported, or refused where the model wants a tensor."""
    path = tmp_path / "pytorch_model.bin"
    write_bin(path, {**TENSORS, "epoch": 3})
    header = read_pickled_header(path)
    assert list(header) == [*TENSORS, "epoch"]
    assert header["epoch"].nbytes == 0
    with pytest.raises(BadTensorFile, match=r"pytorch_model\.bin holds a int under 'epoch'"):
        PickledFile(path).view(header["epoch"])


def test_keys_that_share_a_storage_in_the_file_are_no_tie(tmp_path: Path) -> None:
    """TIE-5: only the model ties."""
    path = tmp_path / "pytorch_model.bin"
    write_bin(path, {"a": TENSORS["matrix"], "b": TENSORS["matrix"], "row": TENSORS["matrix"][1]})
    header, opened = read_pickled_header(path), PickledFile(path)
    storages = {opened.view(tensor).untyped_storage().data_ptr() for tensor in header.values()}
    assert len(storages) == 3
    assert opened.view(header["row"]).untyped_storage().nbytes() == 4 * 4


def test_code_is_not_run_unless_asked_for(checkpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """FMT-5."""
    monkeypatch.delenv("A_PICKLE_RAN_CODE", raising=False)
    folder = checkpoint("llama-f32", "pickle-runs-code")
    for function in (plan, from_pretrained):
        with pytest.raises(UnsafePickle, match=r"pytorch_model\.bin"):
            function(folder)
    assert "A_PICKLE_RAN_CODE" not in os.environ
    from_pretrained(folder, weights_only=False)
    assert os.environ.pop("A_PICKLE_RAN_CODE") == "yes", "the fixture would run code"


@pytest.mark.parametrize("content", [b"", b"\x80\x02", b"PK\x03\x04", b"not a pickle at all"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    """FMT-6."""
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(content)
    with pytest.raises((BadTensorFile, UnsafePickle), match=r"pytorch_model\.bin"):
        read_pickled_header(path)


def test_a_pickle_that_holds_no_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save([torch.ones(1)], path)
    with pytest.raises(BadTensorFile, match="list"):
        read_pickled_header(path)


@pytest.mark.parametrize("fault", ["pickled", "pickled-legacy"])
@pytest.mark.parametrize("recipe", ["llama-bf16", "llama-f32-3", "llama-tied-equal"])
def test_the_same_model_as_from_safetensors(
    checkpoint: Any, same_models: Any, recipe: str, fault: str
) -> None:
    """FMT-4, RES-8."""
    plain, other = (from_pretrained(checkpoint(recipe, *faults)) for faults in ((), (fault,)))
    other.config.name_or_path = other.name_or_path = plain.name_or_path
    same_models(other, plain)


def test_a_plan_reads_no_payload(checkpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint("llama-f32-3", "pickled")
    monkeypatch.setattr("reference_loader.fill.pump.opened", None)
    assert len(plan(folder).placements) == 30


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(lambda: torch.eye(3).to_sparse(), id="sparse"),
        pytest.param(lambda: torch.eye(3).to_sparse_csr(), id="compressed"),
    ],
)
def test_a_tensor_of_another_kind_is_an_entry_that_is_none(tmp_path: Path, odd: Any) -> None:
    """FMT-15: found by fuzzing, since its size cannot be asked for."""
    path = tmp_path / "pytorch_model.bin"
    torch.save({"good": torch.ones(2), "odd": odd()}, path)
    stored = read_pickled_header(path)
    assert stored["good"].nbytes == 8
    assert (stored["odd"].nbytes, stored["odd"].shape) == (0, ())
    with pytest.raises(BadTensorFile, match=r"'odd'"):
        PickledFile(path).view(stored["odd"])
