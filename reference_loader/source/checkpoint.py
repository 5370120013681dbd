"""Where the files of a checkpoint are, and which file wins."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from reference_loader.errors import SourceNotFound, WeightsNotFound
from reference_loader.options import Options
from reference_loader.source.files import STATE_DICT, is_file
from reference_loader.source.index import ShardIndex, read_index
from reference_loader.source.weight_names import weight_names


@dataclass(frozen=True)
class Checkpoint:
    """The files chosen.

    Attributes:
        folder: holds `config.json` and the weights; None for a state dict.
        chosen: the weight file or the index that won.
        files: the weight files, in the order in which they are read.
        index: the shard index, or None for a single file.
        why: why `chosen` won, in words.
    """

    folder: Path | None
    chosen: Path
    files: tuple[Path, ...]
    index: ShardIndex | None
    why: str


def open_folder(
    source: str | PathLike[str], subfolder: str, options: Options | None = None
) -> Path:
    """The folder that holds the checkpoint; of a single file, the folder it lies in.

    With `options`, what is not there and may be an id is fetched from the Hub.

    Raises:
        SourceNotFound: there is no such folder (RES-5).
        LoadError: see `hub.fetch`.
    """
    folder = Path(source) / subfolder
    if folder.is_dir():
        return folder
    if is_file(Path(source)):
        return Path(source).parent
    if options is not None and may_be_id(source):
        from reference_loader.source.hub import fetch

        return fetch(str(source), options) / subfolder
    raise SourceNotFound(f"{folder} is no folder.", "Check the path and `subfolder`.")


def open_config(options: Options) -> Any:
    """The option `config`, with the folder that the Hub's files lie in for an id.

    Raises:
        LoadError: see `hub.fetch_config`.
    """
    given = options.config
    if not isinstance(given, (str, PathLike)) or not may_be_id(given):
        return given
    from reference_loader.source.hub import fetch_config

    return fetch_config(str(given), options)


def may_be_id(source: str | PathLike[str]) -> bool:
    """Whether the source is `name` or `owner/name`, and nothing on this machine."""
    text = str(source)
    local = Path(source).is_absolute() or Path(source).exists() or text.startswith((".", "~"))
    return bool(text) and not local and text.count("/") <= 1 and "\\" not in text


def locate(folder: Path, options: Options, named: str | None = None) -> Checkpoint:
    """Choose the weight files of `folder`.

    Args:
        folder: see `open_folder`.
        options: `variant`, `use_safetensors`.
        named: the file that the config names as the weights, if it does (RES-12).

    Raises:
        WeightsNotFound: none of the names looked for is there (RES-4).
        BadOptions, UnsafePath: `named` is no safetensors, or leads out of the folder (RES-13).
        BadIndex, UnsafePath, ShardNotFound: see `read_index`.
    """
    names = weight_names(options, named)
    chosen = next((folder / name for name in names if is_file(folder / name)), None)
    if chosen is None:
        raise WeightsNotFound(
            f"{folder} holds no weights; looked for {', '.join(names)}.",
            "Check the folder, `subfolder`, `variant` and `use_safetensors`.",
        )
    tried = names[: names.index(chosen.relative_to(folder).as_posix()) + 1]
    return of_file(chosen, "named by the config" if named else f"first found of {', '.join(tried)}")


def of_file(chosen: Path, why: str) -> Checkpoint:
    """The checkpoint of one weight file or one index.

    Raises:
        BadIndex, UnsafePath, ShardNotFound: see `read_index`.
    """
    index = read_index(chosen) if chosen.suffix == ".json" else None
    return Checkpoint(chosen.parent, chosen, index.shards if index else (chosen,), index, why)


def of_state_dict() -> Checkpoint:
    """The checkpoint that is a state dict in memory (RES-10)."""
    return Checkpoint(None, STATE_DICT, (STATE_DICT,), None, "the state dict given")
