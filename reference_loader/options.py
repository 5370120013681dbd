"""`Options`: what a caller asked for, as one frozen value that is passed through a load.

`reference_loader.from_pretrained` documents each option; here are their names, types and defaults,
and the rule
that sorts keyword arguments into options, config overrides and names without effect (CFG-3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from os import PathLike
from types import NoneType, UnionType
from typing import Any, Final, Protocol, get_args, get_origin, get_type_hints, runtime_checkable

import torch

from reference_loader.errors import BadOptions, UnsupportedOption


@runtime_checkable
class ConfigObject(Protocol):
    """An object such as `LlamaConfig` or `GenerationConfig` of transformers."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as they would be written to JSON."""


Source = str | PathLike[str]
ConfigSource = ConfigObject | Mapping[str, Any] | str | PathLike[str]
Dtype = str | torch.dtype
Device = str | int | torch.device
DeviceMap = Device | Mapping[str, Device]
MaxMemory = Mapping[Any, int | str]


class Default(str):
    """A default value that can be told apart from the same value passed explicitly."""

    __slots__ = ()


# An explicit `dtype="auto"` takes precedence over `torch_dtype`; a `dtype` left out does not
# (DTY-4, DTY-11). In every other respect the two are the same.
AUTO: Final = Default("auto")

# Names that the wrappers of transformers (Auto classes, pipelines) pass along, or that older
# releases accepted. They do not affect the loaded model.
WITHOUT_EFFECT = frozenset(
    {
        "_commit_hash",
        "_fast_init",
        "_from_auto",
        "_from_pipeline",
        "adapter_kwargs",
        "allow_all_kernels",
        "disable_mmap",
        "from_flax",
        "from_tf",
        "low_cpu_mem_usage",
        "mirror",
        "offload_state_dict",
        "proxies",
        "resume_download",
        "tqdm_class",
    }
)

# Options that would change the model. Ignoring one would silently load a wrong model.
REFUSED = frozenset(
    {
        "adapter_name",
        "device_mesh",
        "distributed_config",
        "experts_implementation",
        "fusion_config",
        "gguf_file",
        "kernel_config",
        "quantization_config",
        "tp_plan",
        "tp_size",
        "use_kernels",
    }
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Every option with its default; `reference_loader.from_pretrained` describes each.

    The names and meanings are those of the newest transformers release.

    Attributes:
        overrides: keyword arguments that are not options, in the caller's order. One that names a
            config field overrides it; the rest go to the model class (CFG-3).

    Example:
        >>> options = Options.of({"dtype": "float16", "num_hidden_layers": 1})
        >>> options.dtype, options.overrides
        ('float16', {'num_hidden_layers': 1})
    """

    model_class: type | None = None
    config: ConfigSource | None = None
    state_dict: Mapping[str, Any] | None = None
    dtype: Dtype | None = AUTO
    device_map: DeviceMap | None = None
    max_memory: MaxMemory | None = None
    offload_folder: str | PathLike[str] | None = None
    offload_buffers: bool = False
    subfolder: str = ""
    variant: str | None = None
    revision: str = "main"
    cache_dir: str | PathLike[str] | None = None
    token: str | bool | None = None
    local_files_only: bool = False
    force_download: bool = False
    use_safetensors: bool | None = None
    weights_only: bool = True
    ignore_mismatched_sizes: bool = False
    key_mapping: Mapping[str, str] | None = None
    attn_implementation: str | Mapping[str, str] | None = None
    generation_config: ConfigObject | None = None
    quantization_config: Any = None
    gguf_file: str | None = None
    tp_plan: str | Mapping[str, str] | None = None
    distributed_config: Any = None
    trust_remote_code: bool = False
    code_revision: str | None = None
    output_loading_info: bool = False
    strict: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, kwargs: Mapping[str, Any], /, **named: Any) -> Options:
        """Sort keyword arguments into options and overrides (CFG-3, DTY-4).

        Args:
            kwargs: keyword arguments of any name.
            named: further ones, which take precedence over `kwargs`.

        Raises:
            UnsupportedOption: an argument that would change the model and that this loader does not
                support.
            BadOptions: an option is of a wrong type.
        """
        given = {**kwargs, **named}
        for name in sorted(REFUSED & given.keys()):
            if _is_set(given[name]):
                raise UnsupportedOption(
                    f"The option {name!r} is not supported by this loader.",
                    "Leave the option out, or load the checkpoint with transformers.",
                )
        # None is no value for an option whose default is another: it stands for the default.
        names, defaults = cls.names(), {f.name: f.default for f in fields(cls)}
        options = {
            name: value
            for name, value in given.items()
            if name in names and (value is not None or name == "dtype" or defaults[name] is None)
        }
        for name, value in options.items():
            _refuse_wrong_type(name, value)
        rest = given.keys() - names - WITHOUT_EFFECT - REFUSED - {"torch_dtype"}
        asked, older = given.get("dtype"), given.get("torch_dtype")
        if older is not None and (asked is None or asked is AUTO):
            options["dtype"] = older
        return cls(**options, overrides={name: given[name] for name in given if name in rest})

    @classmethod
    def names(cls) -> frozenset[str]:
        """The names of all options."""
        return frozenset(f.name for f in fields(cls)) - {"overrides"}


# Options that are checked where they are used, with an error that says more.
_CHECKED_ELSEWHERE = (
    *("model_class", "config", "state_dict", "dtype", "device_map", "key_mapping"),
    "trust_remote_code",  # whatever is not True trusts nothing (FMT-22)
)


def _is_set(value: Any) -> bool:
    """Whether a refused option asks for something: an array or the like has no truth value."""
    try:
        return bool(value)
    except (RuntimeError, TypeError, ValueError):
        return True


def _refuse_wrong_type(name: str, value: Any) -> None:
    """Raise BadOptions unless the value has a type that the option is declared with."""
    hint = f"The option takes {Options.__annotations__[name]}."
    if name not in _CHECKED_ELSEWHERE and not isinstance(value, _types(name)):
        raise BadOptions(f"{name}={value!r} is a {type(value).__name__}.", hint)
    if name == "attn_implementation" and isinstance(value, Mapping):
        for part, attention in value.items():
            if not isinstance(part, str) or not isinstance(attention, str | None):
                raise BadOptions(f"{name} contains {part!r}: {attention!r}, not text.", hint)


@cache
def _types(name: str) -> tuple[type, ...]:
    """The types that `isinstance` accepts for an option, by its declaration.

    Whatever takes a flag also takes 0, 1 and None, as transformers does.
    """
    declared = get_type_hints(Options)[name]
    parts = get_args(declared) if get_origin(declared) is UnionType else (declared,)
    found = tuple(object if part is Any else get_origin(part) or part for part in parts)
    return (*found, int, NoneType) if bool in found else found
