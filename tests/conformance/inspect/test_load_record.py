"""`conformance record` and `verify`: a file that is small, whole, and held against later loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from conformance.cli import main
from conformance.inspect import load_record as deployment

Own = Callable[..., Path]


@pytest.fixture
def recorded(own: Own, tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint of one's own, and the record of it."""
    folder, file = own("llama-f32"), tmp_path / "deployed.json"
    assert main(["record", str(folder), "--out", str(file)]) == 0
    return folder, file


def verify(*words: Any) -> int:
    return main(["verify", *map(str, words)])


def test_the_same_load_is_the_same(
    recorded: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = recorded
    assert file.stat().st_size < 50_000
    assert verify(file) == 0
    assert "the same as recorded" in capsys.readouterr().out
    moved = folder.rename(folder.with_name("moved"))
    assert verify(file, moved) == 0


def test_another_value_is_named(
    recorded: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = recorded
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = torch.nextafter(weights["model.norm.weight"], torch.tensor(9.0))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert verify(file) == 1
    shown = capsys.readouterr().out
    assert "model.norm.weight" in shown
    assert "different in" in shown


def test_another_file_is_named_though_the_load_is_the_same(
    recorded: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = recorded
    config = folder / "config.json"
    config.write_text(config.read_text("utf-8") + "\n", "utf-8")
    assert verify(file) == 0
    assert "not those recorded: config.json" in capsys.readouterr().out


def test_another_default_is_told_by_its_dtype(
    recorded: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """As when an upgrade changes it: `verify` names what was recorded and what is now."""
    _, file = recorded
    loads = deployment.stock
    monkeypatch.setattr(deployment, "stock", lambda *a, **k: loads(*a, **k | {"dtype": "float16"}))
    assert verify(file) == 1
    shown = capsys.readouterr().out
    assert "torch.float32" in shown
    assert "torch.float16" in shown


def test_a_model_class_and_a_dtype_are_part_of_the_record(own: Own, tmp_path: Path) -> None:
    folder, file = own("llama-f32"), tmp_path / "deployed.json"
    words = ["--model", "transformers:LlamaModel", "--dtype", "bfloat16", "--out", str(file)]
    assert main(["record", str(folder), *words]) == 0
    assert json.loads(file.read_text())["options"] == {
        "model": "transformers:LlamaModel",
        "dtype": "bfloat16",
    }
    assert verify(file) == 0


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda text: text[:-100], "cut off"),
        (lambda text: text.replace('"schema": 1', '"schema": 7'), "schema"),
        (lambda text: text.replace('"bytes": ', '"bytes": 1'), "digest"),
        (lambda text: "[]", "no record"),
    ],
    ids=["cut", "schema", "changed", "other"],
)
def test_what_is_no_whole_record_is_refused(
    recorded: tuple[Path, Path], spoil: Callable[[str], str], told: str, capsys: Any
) -> None:
    _, file = recorded
    file.write_text(spoil(file.read_text("utf-8")), "utf-8")
    assert verify(file) == 2
    assert told in capsys.readouterr().err


def test_what_does_not_load_is_not_recorded(own: Own, tmp_path: Path, capsys: Any) -> None:
    folder = own("llama-f32")
    (folder / "model.safetensors").write_bytes(b"no")
    assert main(["record", str(folder), "--out", str(tmp_path / "x.json")]) == 2
    assert "does not load" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize("words", [["--model", "no:thing"], ["--dtype", "nonsense"]])
def test_arguments_that_name_nothing_are_a_usage_error(
    words: list[str], own: Own, tmp_path: Path
) -> None:
    folder = own("llama-f32")
    assert main(["record", str(folder), "--out", str(tmp_path / "x.json"), *words]) == 64
