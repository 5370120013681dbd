"""Which config class and which model class of the installed transformers a load takes.

With `transformers_model` the only file that imports transformers; the same rules hold for both.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import nn

from reference_loader.errors import (
    BadConfig,
    UnknownArgument,
    UnknownModelClass,
    UnsupportedOption,
)
from reference_loader.model.remote_code import (
    class_reference,
    imported,
    reference_to,
    refusal,
    refuse_kernels,
    trusted,
)
from reference_loader.options import Options
from reference_loader.source.config_file import config_folder, odd_fields, read_config


def config_of(folder: Path | None, options: Options) -> tuple[Any, dict[str, Any]]:
    """The config, and the keyword arguments that are left for the model class (CFG-3)."""
    from transformers import PretrainedConfig

    overrides = dict(options.overrides)
    if isinstance(options.config, PretrainedConfig):
        config = copy.deepcopy(options.config)
    else:
        where = config_folder(folder, options.config)
        config, overrides = _read_transformers_config(where, options, overrides)
    if options.attn_implementation is not None:
        config._attn_implementation = options.attn_implementation
    refuse_kernels(config, options)
    return config, overrides


def _read_transformers_config(
    folder: Path, options: Options, overrides: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    from transformers import CONFIG_MAPPING, AutoConfig

    content = read_config(folder)
    refuse_kernels(content, options)
    model_type = content.get("model_type")
    if not isinstance(model_type, str | None):
        raise BadConfig(f"The config's model_type={model_type!r} is not text.", "Correct it.")
    reader = getattr(options.model_class, "config_class", None) or _config_code(
        content, folder, options
    )
    if reader is AutoConfig and "model_type" not in content:
        # Releases before 5.1 look for the name of a type in the path.
        raise BadConfig(
            f"The file {folder / 'config.json'} has no model_type.", "Pass a `model_class`."
        )
    try:
        config, rest = reader.from_pretrained(
            str(folder),
            return_unused_kwargs=True,
            local_files_only=True,
            # AutoConfig asks on standard input if it is not told (FMT-22).
            **({"trust_remote_code": False} if reader is AutoConfig else {}),
            **overrides,
        )
    except Exception as cause:  # each release validates other fields
        known = reader is AutoConfig and model_type in CONFIG_MAPPING
        unlike = odd({**content, **overrides}, CONFIG_MAPPING[model_type] if known else reader)
        raise BadConfig(
            f"{reader.__name__} does not accept the file {folder / 'config.json'}: {cause}",
            f"Check its fields and the keyword arguments{unlike}.",
        ) from cause
    _give_rope_its_old_names(config)
    return config, rest


def odd(fields: Mapping[str, Any], kind: Any) -> str:
    """The fields that are unlike the defaults of a config class, as the end of a sentence."""
    try:
        found = odd_fields(fields, kind())
    except Exception:  # some classes have no defaults
        found = ""
    return f", above all {found}" if found else ""


def _give_rope_its_old_names(config: Any) -> None:
    """For releases before 5, which ignore `rope_parameters` (CFG-1)."""
    rope = vars(config).get("rope_parameters")
    # Release 5 has `rope_scaling` as another name of `rope_parameters`: to set it would empty them.
    old = {"rope_theta", "rope_scaling"} <= vars(config).keys()
    if old and isinstance(rope, Mapping):
        config.rope_theta = rope.get("rope_theta", config.rope_theta)
        config.rope_scaling = None if rope.get("rope_type") == "default" else dict(rope)


def _config_code(content: Mapping[str, Any], folder: Path, options: Options) -> Any:
    """AutoConfig, or the config class of the checkpoint's code if the caller trusts it (FMT-22).

    Raises:
        RemoteCodeRefused: transformers has no class of its own for the config.
    """
    from transformers import CONFIG_MAPPING, AutoConfig
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    reference = class_reference(content.get("auto_map"), "AutoConfig")
    model_type = content.get("model_type")
    named = isinstance(model_type, str) and model_type in CONFIG_MAPPING
    known = CONFIG_MAPPING[model_type] if named else None
    if reference is None or (known and not known.__module__.startswith("transformers.")):
        return AutoConfig
    if trusted(options):
        found = imported(get_class_from_dynamic_module, reference, folder, options)
        found.register_for_auto_class()
        return found
    if known is None:
        raise refusal(reference, str(folder / "config.json"))
    return AutoConfig


def refuse_unsupported(config: Any) -> None:
    """Refuse a config that asks for what this loader does not do."""
    for name in ("quantization_config",):
        if getattr(config, name, None):
            raise UnsupportedOption(
                f"The config has {name!r}, which is not supported by this loader.",
                "Load the checkpoint with transformers.",
            )


def class_for(asked: Any, config: Any, folder: Path | None, options: Options) -> Any:
    """The class of the options, of the Auto class, or of the config (CFG-5, CFG-13, FMT-22)."""
    from transformers.models.auto.auto_factory import _get_model_class

    table = getattr(asked, "_model_mapping", None)
    if asked is not None and table is None:
        return asked
    auto_map, file = getattr(config, "auto_map", None), _config_file(folder)
    if table is not None:
        reference = class_reference(auto_map, asked.__name__)
        try:
            known = _get_model_class(config, table) if type(config) in table else None
        except TypeError as cause:  # it looks for a name in what is no list
            raise _bad_names(config.architectures) from cause
        # A class that the caller has registered takes precedence over the checkpoint's.
        own = known is not None and not known.__module__.startswith("transformers.")
        if reference and trusted(options) and not own:
            return _model_code(reference, asked, folder, options)
        if known is not None:
            return known
        if reference:
            raise refusal(reference, file)
        raise UnknownModelClass(
            f"{asked.__name__} has no class for the model_type {config.model_type!r}.",
            "Pass another `model_class`.",
        )
    return _class_by_name(config, folder, options)


def _class_by_name(config: Any, folder: Path | None, options: Options) -> Any:
    """The class that the config's `architectures` names, whatever case it writes it in (FMT-22)."""
    import transformers

    names = config.architectures or ()
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise _bad_names(names)
    auto_map, of_type = getattr(config, "auto_map", None), _classes_of_type(config.model_type)
    references = [reference_to(auto_map, name) for name in names]
    for name, reference in zip(names, references, strict=True):
        if reference and trusted(options):
            return _model_code(reference, None, folder, options)
        # Early checkpoints have names such as LLaMAForCausalLM.
        same = [known for known in of_type if known.lower() == name.lower()]
        found = getattr(transformers, same[0] if len(same) == 1 else name, None)
        abstract = name.endswith("PreTrainedModel")
        if isinstance(found, type) and issubclass(found, nn.Module) and not abstract:
            return found
    for reference in filter(None, references):
        raise refusal(reference, _config_file(folder))
    close = [each for name in names for each in get_close_matches(name, of_type, 2)] or of_type[:2]
    meant = f"Did you mean {' or '.join(close)}? " if close else ""
    raise UnknownModelClass(
        f"The config's architectures={config.architectures!r} names no model class of "
        f"transformers; the model_type is {config.model_type!r}.",
        f"{meant}Pass `model_class`: a class, or an Auto class, which goes by the model_type.",
    )


def _bad_names(names: Any) -> BadConfig:
    return BadConfig(
        f"The config's architectures={names!r} is not a list of names of classes.",
        "Set it to a list such as ['LlamaForCausalLM'], or pass `model_class`.",
    )


def _classes_of_type(model_type: str) -> list[str]:
    """The names of the model classes that the Auto classes know for a type of model."""
    from transformers.models.auto import modeling_auto

    known: dict[str, None] = {}
    for name, table in vars(modeling_auto).items():
        if name.startswith("MODEL_") and name.endswith("MAPPING_NAMES"):
            found = table.get(model_type, ())
            known |= dict.fromkeys([found] if isinstance(found, str) else found)
    return list(known)


def config_for_class(asked: Any, model_class: Any, config: Any) -> Any:
    """The config's text part, if the Auto class `asked` chose a model of text alone (CFG-5)."""
    part = (getattr(config, "sub_configs", None) or {}).get("text_config")
    takes = getattr(model_class, "config_class", None)
    if not hasattr(asked, "_model_mapping") or part is None or takes is not part:
        return config
    text = config.get_text_config()
    if getattr(config, "quantization_config", None) is not None:
        text.quantization_config = config.quantization_config
    return text


def refuse_own_loading(model_class: Any) -> None:
    """Refuse a class whose own `from_pretrained` would do more than this load does.

    Raises:
        UnsupportedOption: the class or a parent overrides `PreTrainedModel.from_pretrained`.
    """
    from transformers import PreTrainedModel

    own = getattr(getattr(model_class, "from_pretrained", None), "__func__", None)
    usual = PreTrainedModel.from_pretrained.__func__
    if own in (None, usual) or own.__module__.partition(".")[0] == "reference_loader":
        return
    if issubclass(model_class, PreTrainedModel):
        raise UnsupportedOption(
            f"{model_class.__name__} defines its own from_pretrained, which is not supported by "
            "this loader.",
            f"Call {model_class.__name__}.from_pretrained.",
        )


def _config_file(folder: Path | None) -> str:
    return "config.json" if folder is None else str(folder / "config.json")


def _model_code(reference: str, auto_class: Any, folder: Path | None, options: Options) -> Any:
    """A model class of the checkpoint's code, as its Auto class would return it (FMT-23)."""
    from transformers.dynamic_module_utils import get_class_from_dynamic_module
    from transformers.models.auto import auto_factory

    found = imported(get_class_from_dynamic_module, reference, folder or Path(), options)
    # So that saving the model writes its code too. Unlike stock, this changes no table of
    # transformers: a later load that does not trust the code must not find it there.
    if auto_class is not None and hasattr(found, "register_for_auto_class"):
        found.register_for_auto_class(auto_class=auto_class)
    mixed = getattr(auto_factory, "add_generation_mixin_to_remote_model", lambda same: same)
    return mixed(found)


def check_arguments(model_class: Any, *arguments: Any, **keywords: Any) -> None:
    """Raise before weights are read if the model class rejects its arguments (CFG-16)."""
    try:
        inspect.signature(model_class).bind(*arguments, **keywords)
    except TypeError as cause:
        raise UnknownArgument(
            f"{model_class.__name__} does not accept the arguments: {cause}.",
            "Check the keyword: it is neither an option nor a field of the config.",
        ) from cause
