"""`TransformersModel`: what the installed transformers says about a model class.

The only file that imports transformers. Where its releases have different interfaces, this file
hides the difference; what a load means never depends on the release.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reference_loader.errors import (
    BadConfig,
    UnknownArgument,
    UnknownModelClass,
    UnsupportedOption,
)
from reference_loader.model.architecture import Architecture, Rename
from reference_loader.options import Options
from reference_loader.source.config_file import config_folder, read_config
from reference_loader.source.files import is_file


class TransformersModel(Architecture):
    """A `PreTrainedModel` of the installed transformers, or a user's subclass of one."""

    def __init__(self, folder: Path | None, model_args: tuple[Any, ...], options: Options) -> None:
        self.config, self._model_kwargs = _config(folder, options)
        self._model_args = model_args
        self.weights_name = getattr(self.config, "transformers_weights", None)
        self.model_class = _model_class(options.model_class, self.config)
        if _generates(self.model_class):
            _check_generation_config(folder)
        _check_arguments(self.model_class, self.config, *model_args, **self._model_kwargs)
        self.base_prefix = getattr(self.model_class, "base_model_prefix", "")
        self.declared_dtype = _declared_dtype(self.config)
        _refuse_unsupported(self.config)

    def construct(self) -> nn.Module:
        # Its own copy, since a constructor may write to its config.
        try:
            model = self.model_class(
                copy.deepcopy(self.config), *self._model_args, **self._model_kwargs
            )
        except ValueError as cause:
            raise BadConfig(
                f"{self.model_class.__name__} does not accept the config: {cause}",
                "Check the fields of the config and the arguments of the model class.",
            ) from cause
        _patch_output_recorders(model)
        return model

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
        return _registered_renames(model)

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
        return getattr(module, "_init_weights") if known else None  # noqa: B009  no type has it

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


def _generates(model: Any) -> bool:
    """Whether a model or a model class generates; plain modules do not."""
    return hasattr(model, "can_generate") and bool(model.can_generate())


def _check_generation_config(folder: Path | None) -> None:
    """Raise before the weights are read if `generation_config.json` is malformed (CFG-14)."""
    name = "generation_config.json"
    if folder is not None and is_file(folder / name):
        read_config(folder, name)


def _check_arguments(model_class: Any, *arguments: Any, **keywords: Any) -> None:
    """Raise before weights are read if the model class rejects its arguments (CFG-16)."""
    try:
        inspect.signature(model_class).bind(*arguments, **keywords)
    except TypeError as cause:
        raise UnknownArgument(
            f"{model_class.__name__} does not accept the arguments: {cause}.",
            "Check the keyword: it is neither an option nor a field of the config.",
        ) from cause


def _config(folder: Path | None, options: Options) -> tuple[Any, dict[str, Any]]:
    """The config, and the keyword arguments that are left for the model class (CFG-3)."""
    from transformers import PretrainedConfig

    overrides = dict(options.overrides)
    if isinstance(options.config, PretrainedConfig):
        config = copy.deepcopy(options.config)
    else:
        where = config_folder(folder, options.config)
        config, overrides = _read_transformers_config(where, options.model_class, overrides)
    if options.attn_implementation is not None:
        config._attn_implementation = options.attn_implementation
    return config, overrides


def _read_transformers_config(
    folder: Path, model_class: type | None, overrides: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoConfig

    content = read_config(folder)
    reader = getattr(model_class, "config_class", None) or AutoConfig
    if reader is AutoConfig and "model_type" not in content:
        # Releases before 5.1 look for the name of a type in the path.
        raise BadConfig(
            f"The file {folder / 'config.json'} has no model_type.", "Pass a `model_class`."
        )
    try:
        config, rest = reader.from_pretrained(
            str(folder), return_unused_kwargs=True, local_files_only=True, **overrides
        )
    except Exception as cause:  # each release validates other fields
        raise BadConfig(
            f"{reader.__name__} does not accept the file {folder / 'config.json'}: {cause}",
            "Check its fields and the keyword arguments.",
        ) from cause
    _give_rope_its_old_names(config)
    return config, rest


def _give_rope_its_old_names(config: Any) -> None:
    """For releases before 5, which ignore `rope_parameters` (CFG-1)."""
    rope = vars(config).get("rope_parameters")
    if "rope_theta" in vars(config) and isinstance(rope, Mapping):
        config.rope_theta = rope.get("rope_theta", config.rope_theta)
        config.rope_scaling = None if rope.get("rope_type") == "default" else dict(rope)


def _model_class(asked: Any, config: Any) -> Any:
    """The class of the options, of the Auto class, or of the config (CFG-5, CFG-13)."""
    import transformers
    from transformers.models.auto.auto_factory import _get_model_class

    table = getattr(asked, "_model_mapping", None)
    if asked is not None and table is None:
        return asked
    if table is not None:
        if type(config) not in table:
            raise UnknownModelClass(
                f"{asked.__name__} has no class for the model_type {config.model_type!r}.",
                "Pass another `model_class`.",
            )
        return _get_model_class(config, table)
    for name in config.architectures or ():
        found = getattr(transformers, str(name), None)
        if isinstance(found, type) and issubclass(found, nn.Module):
            return found
    raise UnknownModelClass(
        f"The config's architectures={config.architectures!r} names no class of transformers.",
        "Pass `model_class`.",
    )


def _refuse_unsupported(config: Any) -> None:
    for name in ("quantization_config",):
        if getattr(config, name, None):
            raise UnsupportedOption(
                f"The config has {name!r}, which is not supported by this loader.",
                "Load the checkpoint with transformers.",
            )


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


def _registered_renames(model: nn.Module) -> list[Rename]:
    """The renames in the table of 5.x; a key that needs a conversion raises when it is renamed."""
    try:
        from transformers import conversion_mapping
        from transformers.core_model_loading import WeightRenaming
    except ImportError:
        return []
    table = conversion_mapping.get_model_conversion_mapping(model, add_legacy=False)
    return [_registered(entry, model, isinstance(entry, WeightRenaming)) for entry in table]


def _registered(entry: Any, model: nn.Module, only_renames: bool) -> Rename:
    def rename(key: str) -> str:
        renamed, pattern = entry.rename_source_key(key)
        if pattern is not None and not only_renames:
            raise UnsupportedOption(
                f"{type(model).__name__} needs a conversion of the stored tensor {key!r}, which is "
                "not supported by this loader.",
                "Load the checkpoint with transformers.",
            )
        return str(renamed)

    return rename


def _generation_config(model: nn.Module, folder: Path) -> Any:
    from transformers import GenerationConfig

    local: dict[str, Any] = {"local_files_only": True}
    path = folder / "generation_config.json"
    if is_file(path):
        try:
            return GenerationConfig.from_pretrained(str(folder), **local)
        except ValueError as cause:  # each release checks other fields
            raise BadConfig(
                f"GenerationConfig does not accept the file {path}: {cause}", "Check its fields."
            ) from cause
    if not is_file(folder / "config.json"):
        return model.generation_config
    return GenerationConfig.from_pretrained(
        str(folder), config_file_name="config.json", _from_model_config=True, **local
    )
