"""Build a tiny model of a model type, with values of its own, and save it as its class does."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from conformance.world.architectures.smaller import EXCEPTIONS, SCALES, Scale, shrink
from conformance.world.architectures.types import ModelType

# Parameters a tiny model may have: 260 MB in float32.
MOST_PARAMETERS = 64 * 10**6


class NotBuilt(ValueError):
    """No model of the type can be built and saved here; the message says why."""


@dataclass(frozen=True)
class Built:
    """A tiny model, and how it was made.

    Attributes:
        model: in float32 on the CPU, in eval mode; what is stored has values that its name decides.
        scale: by which its config was made small.
    """

    model: nn.Module
    scale: Scale


def write(model_type: ModelType, folder: Path) -> Built:
    """Build the published class of a model type by the first scale that it accepts, and have the
    class save it in `folder`.

    Raises:
        NotBuilt: it accepts none, a package is missing, or all are too large.
    """
    import transformers

    name = model_type.published
    model_class = getattr(transformers, name, None)
    if model_class is None:
        raise NotBuilt(f"transformers does not export {name}")
    reason = ""
    for scale in SCALES:
        try:
            return _written(model_type.name, model_class, scale, folder)
        except Exception as cause:  # whatever a class raises for sizes that it does not accept
            lines = str(cause).strip().splitlines() or [""]
            reason = reason or f"{type(cause).__name__}: {lines[0]}"
    raise NotBuilt(reason)


def _written(name: str, model_class: Any, scale: Scale, folder: Path) -> Built:
    """Build and save a model by one scale.

    Raises:
        Exception: the class accepts no such sizes.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    config = _config(name, model_class, scale)
    config.save_pretrained(folder)  # some fields count only once they were in a file
    config_class = type(config)
    with torch.device("meta"):
        empty = model_class(config_class.from_pretrained(folder))
    count = sum(parameter.numel() for parameter in empty.parameters())
    if count > MOST_PARAMETERS:
        raise ValueError(f"it has {count:,} parameters")
    torch.manual_seed(0)
    model = model_class(config_class.from_pretrained(folder)).eval()
    _fill(dict(model.named_parameters()).items(), lambda each: each.requires_grad)
    model.save_pretrained(folder)
    # A table that is not saved, such as one of sinusoids, is its constructor's.
    saved: set[str] = set()
    for file in folder.glob("*.safetensors"):
        saved |= set(load_file(file))
    rest = {**dict(model.named_parameters()), **dict(model.named_buffers())}.items()
    if held := [(n, each) for n, each in rest if n in saved and not each.requires_grad]:
        _fill(held, torch.is_floating_point)
        model.save_pretrained(folder)
    return Built(model, scale)


def _config(name: str, model_class: Any, scale: Scale) -> Any:
    """A small config of the type; that of a part where the class is one of a part."""
    from transformers import CONFIG_MAPPING

    config = CONFIG_MAPPING[name]()
    for path, value in EXCEPTIONS.get(name, {}).items():
        *parts, field = path.split(".")
        setattr(reduce(getattr, parts, config), field, value)
    wanted = getattr(model_class, "config_class", None)
    if wanted is not None and not isinstance(config, wanted):
        parts = [part for part in vars(config).values() if isinstance(part, wanted)]
        config = parts[0] if parts else config
    return shrink(config, scale)


@torch.no_grad()
def _fill(
    named: Iterable[tuple[str, torch.Tensor]], chosen: Callable[[torch.Tensor], bool]
) -> None:
    """Give each chosen tensor values drawn by a generator that its name seeds.

    Those of buffers and frozen parameters are positive: one may be a variance.
    """
    for name, tensor in named:
        if chosen(tensor):
            seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
            drawn = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed)) * 0.05
            tensor.copy_(drawn if tensor.requires_grad else drawn.abs() + 0.5)
