"""Choosing the architecture: the plain Llama, or a model class of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.nn import Module

from reference_loader.errors import UnknownModelClass
from reference_loader.llama import Llama
from reference_loader.model.architecture import Architecture, PlainLlama
from reference_loader.model.transformers_model import TransformersModel
from reference_loader.options import Options
from reference_loader.source.config_file import refuse_absurd


def choose(
    source: str,
    folder: Path | None,
    model_args: tuple[Any, ...],
    options: Options,
    *,
    called_by_class: bool = False,
) -> Architecture:
    """The architecture of the model class that the options, or else the config, name (CFG-5).

    Args:
        source: recorded in the config as `name_or_path` (CFG-8).
        folder: contains `config.json`, unless `options.config` replaces it.
        model_args: positional arguments of the model class, after its config.
        options: `model_class`, `config`, `attn_implementation`, `overrides`.
        called_by_class: see `load.load`.

    Raises:
        ConfigNotFound: `config.json` does not exist or is malformed (CFG-6, CFG-7).
        BadConfig: the config class does not accept the fields (CFG-11).
        UnknownArgument: a keyword argument fits neither config nor model (CFG-16).
        UnknownModelClass: neither the options nor the config determine a class.
        UnsupportedOption: the config asks for something that is not supported.
    """
    asked: Any = options.model_class
    auto = hasattr(asked, "_model_mapping")
    if asked is not None and not (isinstance(asked, type) and (auto or issubclass(asked, Module))):
        raise UnknownModelClass(
            f"model_class={asked!r} is not a class of models.",
            "Pass a subclass of PreTrainedModel, an Auto class, or reference_loader.llama.Llama.",
        )
    refuse_absurd(options.overrides)
    if isinstance(options.config, Mapping):
        refuse_absurd(options.config)
    if options.model_class is not None and issubclass(options.model_class, Llama):
        return PlainLlama(folder, options)
    architecture = TransformersModel(folder, model_args, options, called_by_class)
    architecture.config.name_or_path = source
    return architecture
