"""Reading `config.json` and other JSON files of a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reference_loader.errors import BadConfig, BadOptions, ConfigNotFound
from reference_loader.source.files import is_file, read_object

# What a config may say at most: far above every published model, and little enough for what config
# classes and constructors make of it before a weight is looked at.
MOST = (
    (re.compile("layers|blocks|heads|head_dim|experts|labels|stages|groups|depth"), 2**17),
    (re.compile("position|ctx"), 2**24),
    (re.compile("size|dim|width|embd|inner|rank|channels"), 2**31),
)


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """The fields of `config.json`, or of another JSON file of the folder.

    Raises:
        ConfigNotFound: the file does not exist (CFG-6) or is not a JSON object (CFG-7, CFG-14).
        BadConfig: see `refuse_absurd`.
        Unreadable: the system denies reading it (FMT-18).
    """
    path = folder / name
    if not is_file(path):
        adapter = is_file(folder / "adapter_config.json")
        raise ConfigNotFound(
            f"The folder {folder} contains no {name}.",
            "It holds an adapter: load its base model, and add the adapter with `peft`."
            if adapter
            else "Copy the file there, or pass `config`.",
        )
    try:
        fields = read_object(path)
    except ValueError as cause:
        raise ConfigNotFound(
            f"The file {path} is malformed: {cause}.", "Download it again."
        ) from cause
    refuse_absurd(fields)
    return fields


def refuse_absurd(fields: Mapping[str, Any]) -> None:
    """Refuse a count or a size that no model has, before anything of that size is made.

    Raises:
        BadConfig: naming the field (CFG-11).
    """
    for name, value in fields.items():
        if isinstance(value, Mapping):
            refuse_absurd(value)
        elif isinstance(value, (int, float)):
            most = next((most for pattern, most in MOST if pattern.search(str(name))), None)
            if most is not None and abs(value) > most:
                raise BadConfig(
                    f"The config's {name}={value!r} is more than any model has.", "Correct it."
                )


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


def odd_fields(fields: Mapping[str, Any], usual: Any, most: int = 8) -> str:
    """Which fields to check after an error that names none.

    Those of another type or sign than usual, or other text; then those that are not usual at all.

    Args:
        fields: of the config.
        usual: a config object with the defaults.
        most: how many to name.
    """
    odd, others = [], []
    for name, value in fields.items():
        default = getattr(usual, name, None)
        if default is None:
            others += [name] * (value is not None or not hasattr(usual, name))
        elif _is_number(value) and _is_number(default):
            whole = isinstance(default, int) and not isinstance(value, int)
            odd += [name] * (whole or not (value > 0 or value == default))
        else:
            odd += [name] * (value != default)
    return ", ".join(f"{name}={fields[name]!r}" for name in [*odd, *others][:most])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
