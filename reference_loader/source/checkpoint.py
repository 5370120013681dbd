"""Locating a checkpoint: its folder and the weight files to read (RES-1 to RES-14)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from reference_loader.errors import SourceNotFound, WeightsNotFound
from reference_loader.options import Options
from reference_loader.source.files import STATE_DICT, is_file
from reference_loader.source.index import ShardIndex, read_index
from reference_loader.source.weight_names import weight_names

# How the names of files end that may be weights, under whatever name.
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


@dataclass(frozen=True)
class Checkpoint:
    """The files of a checkpoint.

    Attributes:
        folder: contains `config.json` and the weights; None for a state dict.
        chosen: the weight file or the index to load.
        files: the weight files, in the order in which they are read.
        index: the shard index, or None for a single file.
        why: the reason for `chosen`, as the plan prints it.
    """

    folder: Path | None
    chosen: Path
    files: tuple[Path, ...]
    index: ShardIndex | None
    why: str


def open_folder(
    source: str | PathLike[str], subfolder: str, options: Options | None = None
) -> Path:
    """The local folder of a checkpoint (RES-5, RES-6, RES-9, RES-14).

    Args:
        source: a folder, a weight file, or a repository id.
        subfolder: the folder inside `source`; not used for a weight file.
        options: how to ask the Hub. None: a repository id is not looked up.

    Returns:
        The folder; for a weight file the one that contains it; for a repository id the folder of
        its commit in the Hub's cache, after downloading what a load reads.

    Raises:
        SourceNotFound: the folder does not exist.
        LoadError: see `hub.fetch`.
    """
    if not str(source):
        raise SourceNotFound("The source is empty text.", "Pass a folder or a repository id.")
    folder = Path(source) / subfolder
    if os.path.isdir(folder):  # noqa: PTH112  Path.is_dir raises for a rejected name
        return folder
    if is_file(Path(source)):
        return Path(source).parent
    if options is not None and may_be_id(source):
        from reference_loader.source.hub import fetch

        return fetch(str(source), options) / subfolder
    raise SourceNotFound(f"The folder {folder} does not exist.", "Check the path and `subfolder`.")


def open_config(options: Options) -> Any:
    """The option `config`, a repository id in it replaced by the folder of its config (CFG-21).

    Raises:
        LoadError: see `hub.fetch_config`.
    """
    given = options.config
    if not isinstance(given, (str, PathLike)) or not may_be_id(given):
        return given
    from reference_loader.source.hub import fetch_config

    return fetch_config(str(given), options)


def _exists(path: str | PathLike[str]) -> bool:
    return os.path.exists(path)  # noqa: PTH110  Path.exists raises for a rejected name


def may_be_id(source: str | PathLike[str]) -> bool:
    """Whether the source has the form of a repository id and does not exist locally.

    Example:
        >>> [may_be_id(source) for source in ("gpt2", "owner/name", "./gpt2", "/gpt2", "a/b/c")]
        [True, True, False, False, False]
    """
    text = str(source)
    local = Path(source).is_absolute() or _exists(source) or text.startswith((".", "~"))
    return bool(text) and not local and text.count("/") <= 1 and "\\" not in text


def locate(folder: Path, options: Options, named: str | None = None) -> Checkpoint:
    """Choose the weight files of `folder` (RES-1 to RES-4, RES-7, RES-8).

    Args:
        folder: see `open_folder`.
        options: `variant`, `use_safetensors`.
        named: the weight file or index that the config names in `transformers_weights` (RES-12).

    Raises:
        WeightsNotFound: the folder contains none of the expected files (RES-4).
        BadOptions, UnsafePath: `named` is not a safetensors file, or is outside the folder
            (RES-13).
        BadIndex, UnsafePath, ShardNotFound: see `read_index`.
    """
    names = weight_names(options, named)
    chosen = next((folder / name for name in names if is_file(folder / name)), None)
    if chosen is None:
        there = sorted(each.name for each in folder.iterdir() if each.suffix in WEIGHTS)
        other = f" It does contain {', '.join(there[:4])}, which can be given itself." * bool(there)
        raise WeightsNotFound(
            f"The folder {folder} contains no weights; expected one of {', '.join(names)}.{other}",
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
    """The checkpoint of a state dict in memory (RES-10)."""
    return Checkpoint(None, STATE_DICT, (STATE_DICT,), None, "the state dict given")
