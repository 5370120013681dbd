"""`config.json`, and other files of its kind, as a JSON object."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from reference_loader.errors import BadOptions, ConfigNotFound
from reference_loader.source.files import is_file, read_object


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """`config.json` of a folder, or another file of its kind.

    Raises:
        ConfigNotFound: it is absent (CFG-6) or no JSON object (CFG-7).
    """
    path = folder / name
    if not is_file(path):
        raise ConfigNotFound(f"{folder} holds no {name}.", "Copy it, or pass `config`.")
    try:
        return read_object(path)
    except ValueError as cause:
        raise ConfigNotFound(f"{path} is not usable: {cause}.", "Download it again.") from cause


def config_folder(folder: Path | None, given: Any) -> Path:
    """The folder of the config: that of the option `config`, or else the checkpoint's own.

    Raises:
        BadOptions: `config` is neither a config object nor a path (CFG-18).
    """
    if given is None:
        return folder or Path()
    if not isinstance(given, (str, os.PathLike)):
        raise BadOptions(
            f"config={given!r} is neither a config object nor a path.",
            "Build a config object of it, or leave `config` out.",
        )
    return Path(given)
