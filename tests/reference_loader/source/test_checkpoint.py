"""Which file wins. RES-1 to RES-7."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reference_loader import from_pretrained
from reference_loader.errors import ConfigNotFound, LoadError, SourceNotFound, WeightsNotFound
from reference_loader.options import Options
from reference_loader.source.checkpoint import locate, open_folder
from reference_loader.source.weight_names import with_variant

ORDER = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def lay(folder: Path, *names: str) -> Path:
    """Files of these names; an index names the one shard of its kind that lies beside it."""
    folder.mkdir(exist_ok=True)
    shards = ("shard.safetensors", "shard.bin")
    for shard in shards:
        (folder / shard).touch()
    for name in names:
        index = {"metadata": {}, "weight_map": {"k": shards[".bin" in name]}}
        (folder / name).write_text(json.dumps(index) if name.endswith(".json") else "")
    return folder


@pytest.mark.parametrize("present", range(1, 16))
@pytest.mark.parametrize("use", [None, True, False])
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_the_first_of_the_order_wins(
    tmp_path: Path, present: int, use: bool | None, variant: str | None
) -> None:
    """RES-2, RES-3, RES-7: every set of files, both narrowings, with and without a variant."""
    names = [with_variant(name, variant) for name in ORDER]
    there = [name for i, name in enumerate(names) if present >> i & 1]
    folder = lay(tmp_path / "f", *there)
    allowed = {None: names, True: names[:2], False: names[2:]}[use]
    wanted = next((name for name in allowed if name in there), None)
    options = Options(use_safetensors=use, variant=variant)
    if wanted is not None:
        checkpoint = locate(folder, options)
        single, kind = not wanted.endswith(".json"), "bin" if ".bin" in wanted else "safetensors"
        assert checkpoint.chosen == folder / wanted
        assert checkpoint.files == (folder / (wanted if single else f"shard.{kind}"),)
        assert (checkpoint.index is None) is single
        assert wanted in checkpoint.why
    else:
        with pytest.raises(WeightsNotFound) as raised:
            locate(folder, options)
        assert allowed[0] in str(raised.value)
        assert str(folder) in str(raised.value)


def test_an_index_beside_a_single_file_is_not_read(tmp_path: Path) -> None:
    """RES-2."""
    folder = lay(tmp_path / "f", "model.safetensors")
    (folder / "model.safetensors.index.json").write_text("{")
    assert locate(folder, Options()).chosen.name == "model.safetensors"


def test_no_other_variant_than_the_one_asked_for(tmp_path: Path) -> None:
    """RES-7."""
    folder = lay(tmp_path / "f", "model.fp16.safetensors")
    for variant in (None, "fp8", ""):
        with pytest.raises(WeightsNotFound):
            locate(folder, Options(variant=variant))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.safetensors", "model.fp16.safetensors"),
        ("model.safetensors.index.json", "model.safetensors.index.fp16.json"),
        ("pytorch_model.bin", "pytorch_model.fp16.bin"),
    ],
)
def test_the_variant_stands_before_the_extension(name: str, expected: str) -> None:
    """RES-7."""
    assert with_variant(name, "fp16") == expected
    assert with_variant(name, None) == name


def test_a_folder_by_path_or_text_and_its_subfolder(tmp_path: Path) -> None:
    """RES-6."""
    (tmp_path / "inner").mkdir()
    assert open_folder(tmp_path, "") == open_folder(str(tmp_path), "") == tmp_path
    assert open_folder(tmp_path, "inner") == tmp_path / "inner"


def test_what_is_no_folder(tmp_path: Path) -> None:
    """RES-5: an OSError that names it; of a single file, the folder it lies in (RES-9)."""
    (tmp_path / "model.safetensors").touch()
    for source, subfolder in ((tmp_path / "no", ""), (tmp_path, "no"), ("org/name", "")):
        with pytest.raises(SourceNotFound, match="no"):
            open_folder(source, subfolder)
    assert open_folder(tmp_path / "model.safetensors", "") == tmp_path


def test_a_folder_named_as_a_weight_file_is_none(tmp_path: Path) -> None:
    """RES-4."""
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(LoadError):
        locate(tmp_path, Options())


def test_weights_under_another_name_are_named(own: Any) -> None:
    """RES-4: the folder is not empty, and the file can be given itself (RES-9)."""
    folder = own("llama-f32")
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    with pytest.raises(WeightsNotFound, match=r"It does contain weights\.safetensors"):
        from_pretrained(folder)
    assert type(from_pretrained(folder / "weights.safetensors")).__name__ == "LlamaForCausalLM"


def test_an_adapter_without_its_base_is_called_one(tmp_path: Path) -> None:
    """CFG-6."""
    (tmp_path / "adapter_config.json").write_text("{}", "utf-8")
    with pytest.raises(ConfigNotFound, match="holds an adapter"):
        from_pretrained(tmp_path)
