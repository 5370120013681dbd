"""`TransformersModel`: what the installed transformers says about a model class.

With `transformers_classes` the only file that imports transformers. Where its releases have
different interfaces, these files hide the difference; what a load means never depends on the
release.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reference_loader.errors import BadConfig
from reference_loader.model.architecture import Architecture, Converter, Rename
from reference_loader.model.remote_code import (
    nested_reference,
    never_asking,
    refusal,
    take_custom_generate,
    trusted,
)
from reference_loader.model.transformers_classes import (
    check_arguments,
    class_for,
    config_for_class,
    config_of,
    odd,
    refuse_own_loading,
    refuse_unsupported,
)
from reference_loader.model.transformers_conversions import (
    converters_of,
    registered,
    remember_used,
    renames_of,
)
from reference_loader.options import Options
from reference_loader.source.config_file import read_config
from reference_loader.source.files import is_file

# What a constructor raises for fields that it cannot work with. An exception class of the model's
# own reaches the caller unchanged (STA-6).
UNFIT = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, IndexError, KeyError),
    *(MemoryError, NameError, RuntimeError, TypeError),
)


class TransformersModel(Architecture):
    """A `PreTrainedModel` of the installed transformers, or a user's subclass of one."""

    def __init__(
        self,
        folder: Path | None,
        model_args: tuple[Any, ...],
        options: Options,
        called_by_class: bool = False,
    ) -> None:
        self._trusted, self._attention = trusted(options), options.attn_implementation
        with never_asking(_dynamic_modules()):
            self.config, self._model_kwargs = config_of(folder, options)
            self._model_args = model_args
            self.weights_name = getattr(self.config, "transformers_weights", None)
            self.model_class = class_for(options.model_class, self.config, folder, options)
        if not called_by_class:
            refuse_own_loading(self.model_class)
        self.config = config_for_class(options.model_class, self.model_class, self.config)
        if _generates(self.model_class):
            _check_generation_config(folder)
        check_arguments(self.model_class, self.config, *model_args, **self._model_kwargs)
        self.base_prefix = getattr(self.model_class, "base_model_prefix", "")
        self.declared_dtype = _declared_dtype(self.config)
        refuse_unsupported(self.config)

    def construct(self) -> nn.Module:
        # Its own copy, since a constructor may write to its config.
        try:
            with never_asking(_dynamic_modules()):
                model = self.model_class(
                    copy.deepcopy(self.config), *self._model_args, **self._model_kwargs
                )
        except ValueError as cause:
            nested = nested_reference(self.config)
            if nested is not None and "trust_remote_code" in str(cause) and not self._trusted:
                raise refusal(nested, "config.json") from cause
            raise self._bad_config(cause) from cause
        except UNFIT as cause:
            raise self._bad_config(cause) from cause
        _patch_output_recorders(model)
        return model

    def _bad_config(self, cause: Exception) -> BadConfig:
        """The error for a config with which the class cannot be constructed (CFG-11)."""
        told = str(cause) if isinstance(cause, ValueError) else f"{type(cause).__name__}: {cause}"
        given = f" with attn_implementation={self._attention!r}" if self._attention else ""
        fields = {"_attn_implementation": getattr(self.config, "_attn_implementation", None)}
        fields |= {name: value for name, value in vars(self.config).items() if name[:1] != "_"}
        return BadConfig(
            f"{self.model_class.__name__} does not accept the config{given}: {told}",
            "Check the arguments of the model class and the fields of the config"
            f"{odd(fields, type(self.config))}.",
        )

    def set_dtype(self, dtype: torch.dtype) -> None:
        parts = [
            getattr(self.config, name, None) for name in getattr(self.config, "sub_configs", ())
        ]
        for config in (self.config, *(part for part in parts if part is not None)):
            setattr(config, _dtype_field(config), dtype)

    def kept_in_float32(self, model: nn.Module, dtype: torch.dtype) -> set[str]:
        kept = set()
        if dtype == torch.float16:
            kept |= set(getattr(model, "_keep_in_fp32_modules", None) or ())
        if dtype in (torch.float16, torch.bfloat16):
            kept |= set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
        return kept

    def key_mapping(self, model: nn.Module) -> Mapping[str, str]:
        mapping = getattr(model, "_checkpoint_conversion_mapping", None)
        return mapping if isinstance(mapping, dict) else {}

    def renames(self, model: nn.Module) -> list[Rename]:
        self._entries = registered(model)
        return renames_of(self._entries)

    def converters(self, model: nn.Module) -> list[Converter]:
        return converters_of(self._entries, model)

    def remember_renames(
        self,
        model: nn.Module,
        mapping: Mapping[str, str],
        stored: Iterable[str],
        renamed: Sequence[str],
    ) -> None:
        remember_used(model, self._entries, mapping, stored, renamed)

    def ignored_unexpected(self, model: nn.Module) -> set[str]:
        # Buffers that older releases saved and newer ones compute.
        buffers = [name for name, _ in model.named_buffers()]
        computed = {
            pattern
            for suffix, pattern in (
                ("rotary_emb.inv_freq", r"rotary_emb\.inv_freq"),
                ("position_ids", r"(^|\.)position_ids$"),
            )
            if any(name.endswith(suffix) for name in buffers)
        }
        return computed | set(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())

    def ignored_missing(self, model: nn.Module) -> set[str]:
        return set(getattr(model, "_keys_to_ignore_on_load_missing", None) or ())

    def initialiser(self, module: nn.Module) -> Callable[[nn.Module], object] | None:
        # The class first: `hasattr` of a module without the attribute is slow.
        known = hasattr(type(module), "_init_weights") or "_init_weights" in vars(module)
        if not known:
            return None
        hook = getattr(type(module), "_initialize_weights", None)
        if hook is None or hook.__module__ == "transformers.modeling_utils":
            usual: Any = module
            return usual._init_weights  # type: ignore[no-any-return]
        # A class, or a caller, has put another in the place of the library's, which only asks
        # whether that is done already: by the constructor it was, while nothing had memory.
        whole: Any = module

        def once_more(part: nn.Module) -> None:
            vars(part).pop("_is_hf_initialized", None)
            whole._initialize_weights(part)

        return once_more

    def forget_tie(self, model: nn.Module, name: str) -> None:
        getattr(model, "all_tied_weights_keys", {}).pop(name, None)

    def read_generation_config(self, model: Any, folder: Path | None, options: Options) -> None:
        if not _generates(model):
            return
        given = options.generation_config
        if given is not None:
            model.generation_config = model.generation_config.from_dict(given.to_dict())
        elif folder is not None:
            model.generation_config = _generation_config(model, folder)
            if trusted(options) and hasattr(model, "load_custom_generate"):
                take_custom_generate(model, folder, options)


def _dynamic_modules() -> Any:
    from transformers import dynamic_module_utils

    return dynamic_module_utils


def _generates(model: Any) -> bool:
    """Whether a model or a model class generates; plain modules do not."""
    return hasattr(model, "can_generate") and bool(model.can_generate())


def _check_generation_config(folder: Path | None) -> None:
    """Raise before the weights are read if `generation_config.json` is malformed (CFG-14)."""
    name = "generation_config.json"
    if folder is not None and is_file(folder / name):
        read_config(folder, name)


def _dtype_field(config: Any) -> str:
    """`torch_dtype` became `dtype` in 4.56, and the old name a property."""
    return "torch_dtype" if "torch_dtype" in vars(config) else "dtype"


def _declared_dtype(config: Any) -> Any:
    """The dtype that the config declares (CFG-10); releases before 4.56 have only the old name."""
    return vars(config).get("dtype") or getattr(config, _dtype_field(config), None)


def _patch_output_recorders(model: nn.Module) -> None:
    try:
        from transformers.monkey_patching import patch_output_recorders
    except ImportError:  # before 5.2
        return
    patch_output_recorders(model)


def _generation_config(model: Any, folder: Path) -> Any:
    from transformers import GenerationConfig

    # A model may have a class of its own for it (CFG-4).
    kind = getattr(model, "generation_config_class", GenerationConfig)
    local: dict[str, Any] = {"local_files_only": True}
    path = folder / "generation_config.json"
    if is_file(path):
        try:
            return kind.from_pretrained(str(folder), **local)
        except ValueError as cause:  # each release checks other fields
            raise BadConfig(
                f"{kind.__name__} does not accept the file {path}: {cause}", "Check its fields."
            ) from cause
    if not is_file(folder / "config.json"):
        return model.generation_config
    return kind.from_pretrained(
        str(folder), config_file_name="config.json", _from_model_config=True, **local
    )
