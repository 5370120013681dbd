"""Reading `config.json` and other JSON files of a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from reference_loader.errors import BadOptions, ConfigNotFound
from reference_loader.source.files import is_file, read_object


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """The fields of `config.json`, or of another JSON file of the folder.

    Raises:
        ConfigNotFound: the file does not exist (CFG-6) or is not a JSON object (CFG-7, CFG-14).
        Unreadable: the system denies reading it (FMT-18).
    """
    path = folder / name
    if not is_file(path):
        raise ConfigNotFound(
            f"The folder {folder} contains no {name}.", "Copy the file there, or pass `config`."
        )
    try:
        return read_object(path)
    except ValueError as cause:
        raise ConfigNotFound(
            f"The file {path} is malformed: {cause}.", "Download it again."
        ) from cause


def config_folder(folder: Path | None, given: Any) -> Path:
    """The folder to read the config from: the option `config` (CFG-21), else the checkpoint's.

    Raises:
        BadOptions: `config` is neither a config object nor a path (CFG-18).
    """
    if given is None:
        return folder or Path()
    if not isinstance(given, (str, os.PathLike)):
        raise BadOptions(
            f"config={given!r} is neither a config object nor a path.",
            "Pass a config object or the path of a folder, or leave `config` out.",
        )
    return Path(given)
