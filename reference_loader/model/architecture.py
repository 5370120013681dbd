"""What a loader must know of a model class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reference_loader.errors import BadConfig
from reference_loader.llama import Llama
from reference_loader.options import Options
from reference_loader.source.config_file import config_folder, read_config

# A rename of checkpoint keys: a key to its new name, or to itself.
Rename = Callable[[str], str]


class Architecture:
    """A model class with the config it is built from.

    Attributes:
        model_class: what is built.
        config: what it is built from; a copy, so the caller's is never modified (CFG-2).
        base_prefix: the attribute under which a head model keeps its base model; "" for none.
        declared_dtype: what the config declares: a dtype, its name, or None.
        weights_name: the file that the config names as the weights, or None (RES-12).
    """

    model_class: type[nn.Module]
    config: Any
    base_prefix: str
    declared_dtype: Any
    weights_name: str | None = None

    def construct(self) -> nn.Module:
        """Call the model class."""
        raise NotImplementedError

    def set_dtype(self, dtype: torch.dtype) -> None:
        """Note in the config which dtype the model is built in (CFG-8)."""

    def kept_in_float32(self, model: nn.Module, dtype: torch.dtype) -> set[str]:
        """Modules that stay in float32 though the model is built in `dtype` (DTY-9)."""
        return set()

    def key_mapping(self, model: nn.Module) -> Mapping[str, str]:
        """Regular expressions and their replacements that the class names for checkpoint keys."""
        return {}

    def renames(self, model: nn.Module) -> list[Rename]:
        """The renames of checkpoint keys that are registered for the class."""
        return []

    def ignored_unexpected(self, model: nn.Module) -> set[str]:
        """Regular expressions of keys nobody needs to hear of when they are left over (MAP-5)."""
        return set()

    def ignored_missing(self, model: nn.Module) -> set[str]:
        """Regular expressions of keys nobody needs to hear of when they are missing."""
        return set()

    def infer_device_map(
        self, model: nn.Module, mode: str, max_memory: Mapping[Any, Any] | None
    ) -> dict[str, Any]:
        """The device map that accelerate makes of the budgets (PLC-5)."""
        from accelerate.utils import get_balanced_memory, get_max_memory, infer_auto_device_map

        whole = sorted(getattr(model, "_no_split_modules", None) or ())
        budgets = dict(max_memory) if max_memory is not None else None
        if mode == "sequential":
            budgets = get_max_memory(budgets)
        else:
            budgets = get_balanced_memory(
                model,
                max_memory=budgets,
                no_split_module_classes=whole,
                low_zero=mode == "balanced_low_0",
            )
        inferred = infer_auto_device_map(model, budgets, no_split_module_classes=whole)
        return dict(inferred)

    def initialiser(self, module: nn.Module) -> Callable[[nn.Module], object] | None:
        """The function that initialises `module` and what is below it, if it brings one."""
        return None

    def forget_tie(self, model: nn.Module, name: str) -> None:
        """Note on the model that `name` is not tied after all."""

    def read_generation_config(self, model: Any, folder: Path | None, options: Options) -> None:
        """Give a model that generates its generation config (CFG-4)."""


class PlainLlama(Architecture):
    """Our own Llama: needs no transformers."""

    def __init__(self, folder: Path | None, options: Options) -> None:
        self.model_class = options.model_class or Llama
        self.config = {**_plain_config(folder, options.config), **options.overrides}
        self.base_prefix = Llama.base_model_prefix
        self.declared_dtype = self.config.get("dtype", self.config.get("torch_dtype"))

    def construct(self) -> nn.Module:
        try:
            return Llama.from_config(self.config)
        except ValueError as cause:
            raise BadConfig(f"The config makes no plain Llama: {cause}.") from cause

    def ignored_unexpected(self, model: nn.Module) -> set[str]:
        return {r"rotary_emb\.inv_freq"}


def _plain_config(folder: Path | None, given: Any) -> dict[str, Any]:
    """The config of a plain Llama: given as a mapping, an object or a folder, or else read."""
    if isinstance(given, Mapping):
        return dict(given)
    if hasattr(given, "to_dict"):
        return dict(given.to_dict())
    return read_config(config_folder(folder, given))
