"""Where the files of a checkpoint are, and which file wins."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from reference_loader.errors import SourceNotFound, UnsupportedOption, WeightsNotFound
from reference_loader.index import ShardIndex, read_index
from reference_loader.options import Options

# In this order; a single file before an index, safetensors before pickled files (RES-2, RES-3).
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class Checkpoint:
    """The files chosen.

    Attributes:
        folder: holds `config.json` and the weights.
        chosen: the weight file or the index that won.
        files: the weight files, in the order in which they are read.
        index: the shard index, or None for a single file.
        why: why `chosen` won, in words.
    """

    folder: Path
    chosen: Path
    files: tuple[Path, ...]
    index: ShardIndex | None
    why: str


def open_folder(source: str | PathLike[str], subfolder: str) -> Path:
    """The folder that holds the checkpoint.

    Raises:
        SourceNotFound: there is no such folder (RES-5).
        UnsupportedOption: the source is a single file.
    """
    folder = Path(source) / subfolder
    if folder.is_dir():
        return folder
    if Path(source).is_file():
        raise UnsupportedOption(
            f"{source} is a file; this loader takes the folder that holds it.",
            "Give the folder. Single files are planned.",
        )
    raise SourceNotFound(
        f"{folder} is no folder.",
        "Check the path. Models are not fetched from the Hub by this loader yet.",
    )


def locate(folder: Path, options: Options) -> Checkpoint:
    """Choose the weight files of `folder`.

    Raises:
        WeightsNotFound: none of the names looked for is there (RES-4).
        UnsupportedOption: only pickled weights are there.
        BadIndex, UnsafePath, ShardNotFound: see `read_index`.
    """
    names = [with_variant(name, options.variant) for name in _candidates(options.use_safetensors)]
    chosen = next((folder / name for name in names if (folder / name).is_file()), None)
    if chosen is None:
        raise WeightsNotFound(
            f"{folder} holds no weights; looked for {', '.join(names)}.",
            "Check the folder, `subfolder`, `variant` and `use_safetensors`.",
        )
    if ".safetensors" not in chosen.name:
        raise UnsupportedOption(
            f"{chosen} is a pickled checkpoint, which this loader does not read yet.",
            "Convert it to safetensors.",
        )
    index = read_index(chosen) if chosen.suffix == ".json" else None
    why = "first found of " + ", ".join(names[: names.index(chosen.name) + 1])
    return Checkpoint(folder, chosen, index.shards if index else (chosen,), index, why)


def with_variant(name: str, variant: str | None) -> str:
    """`model.safetensors` of variant `fp16` is `model.fp16.safetensors` (RES-7)."""
    stem, _, extension = name.rpartition(".")
    return name if variant is None else f"{stem}.{variant}.{extension}"


def _candidates(use_safetensors: bool | None) -> tuple[str, ...]:
    if use_safetensors is None:
        return SAFETENSORS + PICKLED
    return SAFETENSORS if use_safetensors else PICKLED
