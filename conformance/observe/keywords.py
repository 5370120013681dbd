"""The keyword arguments of a load: made anew for each, so that no loader can change a case.

What the caller passes is the caller's: a loader that empties a `key_mapping` or writes to a
`device_map` is judged for it (CFG-40), and the next load gets what the case says.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from conformance.cases.case import (
    Case,
    CommitId,
    ConfigFolder,
    ConfigObject,
    EmptyFolder,
    SpoiledStateDict,
    StoredStateDict,
    Torch,
)
from conformance.observe.facts import text_of
from conformance.world.hub_world import commit_id


def keywords(
    case: Case, source: Path, model_class: type | None
) -> tuple[dict[str, Any], tuple[Any, str] | None]:
    """The keyword arguments, and a config object among them with its text before the load."""
    options = case.keywords()
    passed = None
    for name, value in options.items():
        if isinstance(value, Torch):
            options[name] = _of_torch(value)
        elif name == "device_map" and isinstance(value, Mapping):
            options[name] = {key: _of_torch(place) for key, place in value.items()}
        elif isinstance(value, EmptyFolder):
            options[name] = _empty_folder()
        elif isinstance(value, ConfigFolder):
            options[name] = value.path()
        elif isinstance(value, CommitId):
            options[name] = commit_id(source)
        elif isinstance(value, StoredStateDict):
            options[name] = load_file(source / "model.safetensors")
        elif isinstance(value, SpoiledStateDict):
            tensors: dict[str, Any] = load_file(source / "model.safetensors")
            options[name] = {**tensors, value.key: _SPOILED[value.entry](tensors[value.key])}
        elif isinstance(value, ConfigObject):
            config = model_class.config_class.from_pretrained(str(source))  # type: ignore[union-attr]
            for field, changed in value.changes.items():
                setattr(config, field, deepcopy(changed))
            options[name], passed = config, (config, text_of(config))
        else:
            options[name] = deepcopy(value)
    return options, passed


# Each of `SPOILED`, carried out.
_SPOILED: dict[str, Callable[[torch.Tensor], Any]] = {
    "none": lambda tensor: None,
    "list": lambda tensor: tensor.tolist(),
    "array": lambda tensor: tensor.numpy(),
    "meta": lambda tensor: tensor.to("meta"),
}


def _of_torch(value: Any) -> Any:
    """The member of torch that a `Torch` names; any other value as it is."""
    if not isinstance(value, Torch):
        return value
    member, _, argument = value.name.partition(":")
    found = getattr(torch, member)
    return found(argument) if argument else found


def _empty_folder() -> Path:
    """A folder that lasts as long as the process: the model reads from it while it is in use."""
    folder = Path(tempfile.mkdtemp(prefix="conformance-offload-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
