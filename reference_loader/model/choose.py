"""Which architecture a load is of: the plain Llama, or a model class of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reference_loader.errors import UnknownModelClass
from reference_loader.llama import Llama
from reference_loader.model.architecture import Architecture, PlainLlama
from reference_loader.model.transformers_model import TransformersModel
from reference_loader.options import Options


def choose(
    source: str, folder: Path | None, model_args: tuple[Any, ...], options: Options
) -> Architecture:
    """The architecture that the arguments, or else the config, ask for (CFG-5).

    Raises:
        ConfigNotFound: no readable `config.json` and no config passed (CFG-6, CFG-7).
        UnknownModelClass: the class cannot be told.
    """
    if options.model_class is not None and not isinstance(options.model_class, type):
        raise UnknownModelClass(f"model_class={options.model_class!r} is no class.")
    if options.model_class is not None and issubclass(options.model_class, Llama):
        return PlainLlama(folder, options)
    architecture = TransformersModel(folder, model_args, options)
    architecture.config.name_or_path = source
    return architecture
