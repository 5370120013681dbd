"""`Architecture`: what a load needs to know about a model class; and the plain Llama's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from reference_loader.errors import BadConfig
from reference_loader.llama import Llama
from reference_loader.options import Options
from reference_loader.source.config_file import config_folder, read_config

# A rename of checkpoint keys: a key to its new name, or to itself.
Rename = Callable[[str], str]


class Converter(Protocol):
    """Operations that make tensors of the model out of stored tensors (CNV-1).

    Attributes:
        operations: their names, in order.
        patterns: what the keys of stored tensors must fit, one for each list of them.
    """

    operations: str
    patterns: Sequence[str]

    def claim(self, key: str) -> tuple[str, str] | None:
        """The first tensor that is made with a stored one, and the pattern that its key fits."""

    def makes(self, first: str) -> list[str]:
        """Every tensor that is made together with the first, by its patterns."""

    def convert(
        self, first: str, tensors: Mapping[str, Sequence[torch.Tensor]]
    ) -> Mapping[str, torch.Tensor]:
        """Run the operations: pattern to its tensors, in order; name in the model to tensor."""


class Architecture:
    """A model class with its config.

    The defaults of the methods are those of a class that has no special rules.

    Attributes:
        model_class: the class to build.
        config: a config object, or for `Llama` a dict; a copy, so the caller's is never modified
            (CFG-2).
        base_prefix: the attribute in which a head model keeps its base model (MAP-2, MAP-3), or "".
        declared_dtype: the dtype that the config declares, its name, or None (DTY-12).
        weights_name: the weight file that the config names, or None (RES-12).
    """

    model_class: type[nn.Module]
    config: Any
    base_prefix: str
    declared_dtype: Any
    weights_name: str | None = None

    def construct(self) -> nn.Module:
        """Call the model class.

        Raises:
            BadConfig: the class does not accept the config.
        """
        raise NotImplementedError

    def set_dtype(self, dtype: torch.dtype) -> None:
        """Record in the config the dtype in which the model is built (CFG-8)."""

    def kept_in_float32(self, model: nn.Module, dtype: torch.dtype) -> set[str]:
        """Names of modules that stay in float32 in a model of `dtype` (DTY-9)."""
        return set()

    def key_mapping(self, model: nn.Module) -> Mapping[str, str]:
        """The class's own renames of stored keys: regular expression to replacement (MAP-6)."""
        return {}

    def renames(self, model: nn.Module) -> list[Rename]:
        """The renames of stored keys that the library registers for the class."""
        return []

    def converters(self, model: nn.Module) -> list[Converter]:
        """The conversions of stored tensors that the library registers for the class (CNV-1)."""
        return []

    def remember_renames(
        self,
        model: nn.Module,
        mapping: Mapping[str, str],
        stored: Iterable[str],
        renamed: Sequence[str],
    ) -> None:
        """Leave with the model what a save needs to write the checkpoint's names again (SAV-1).

        Args:
            model: what was loaded; its conversions are noted already.
            mapping: the caller's `key_mapping`.
            stored: the checkpoint keys.
            renamed: those that have another name in the model.
        """

    def ignored_unexpected(self, model: nn.Module) -> set[str]:
        """Regular expressions of unexpected keys that are not reported (MAP-5, MAP-11)."""
        return set()

    def ignored_missing(self, model: nn.Module) -> set[str]:
        """Regular expressions of missing keys that are not reported (MAP-11)."""
        return set()

    def infer_device_map(
        self, model: nn.Module, mode: str, max_memory: Mapping[Any, Any] | None
    ) -> dict[str, Any]:
        """The device map that accelerate computes from the budgets (PLC-5, PLC-6).

        Args:
            model: its parameters are on meta, in their final dtype.
            mode: "auto", "balanced", "balanced_low_0" or "sequential".
            max_memory: device to budget; None: the free memory.
        """
        from accelerate.utils import get_balanced_memory, get_max_memory, infer_auto_device_map

        whole = sorted(getattr(model, "_no_split_modules", None) or ())
        # The disk is no device that is balanced, and has a place of its own in the result.
        given = dict(max_memory) if max_memory is not None else None
        disk = {name: given.pop(name) for name in ("disk",) if given and name in given}
        if mode == "sequential":
            budgets = get_max_memory(given)
        else:
            budgets = get_balanced_memory(
                model,
                max_memory=given,
                no_split_module_classes=whole,
                low_zero=mode == "balanced_low_0",
            )
        budgets = {**budgets, **disk}
        inferred = infer_auto_device_map(model, budgets, no_split_module_classes=whole)
        return dict(inferred)

    def initialiser(self, module: nn.Module) -> Callable[[nn.Module], object] | None:
        """The module's own function that initialises it and its submodules, or None (MIS-1)."""
        return None

    def forget_tie(self, model: nn.Module, name: str) -> None:
        """Record on the model that `name` is not tied (TIE-4)."""

    def read_generation_config(self, model: Any, folder: Path | None, options: Options) -> None:
        """Set the generation config of a model that generates (CFG-4).

        Raises:
            BadConfig, ConfigNotFound: the file is invalid (CFG-20) or malformed (CFG-14).
        """


class PlainLlama(Architecture):
    """`reference_loader.llama.Llama`; loading it does not import transformers."""

    def __init__(self, folder: Path | None, options: Options) -> None:
        self.model_class = options.model_class or Llama
        self.config = {**_plain_config(folder, options.config), **options.overrides}
        self.base_prefix = Llama.base_model_prefix
        self.declared_dtype = self.config.get("dtype", self.config.get("torch_dtype"))

    def construct(self) -> nn.Module:
        try:
            return Llama.from_config(self.config)
        except (ArithmeticError, RuntimeError, TypeError, ValueError) as cause:
            raise BadConfig(
                f"The config is not valid for the plain Llama: {cause}.",
                "Check that field of the config, or load with transformers' own class.",
            ) from cause

    def ignored_unexpected(self, model: nn.Module) -> set[str]:
        return {r"rotary_emb\.inv_freq"}


def _plain_config(folder: Path | None, given: Any) -> dict[str, Any]:
    """The config of the plain Llama as a dict, from a mapping, an object or a folder (CFG-21)."""
    if isinstance(given, Mapping):
        return dict(given)
    if hasattr(given, "to_dict"):
        return dict(given.to_dict())
    return read_config(config_folder(folder, given))
