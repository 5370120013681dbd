"""The options of `from_pretrained`, named once for `from_pretrained` and `plan` alike."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from os import PathLike
from typing import Any

from reference_loader.errors import UnsupportedOption

# What the wrappers of transformers (Auto classes, pipelines) pass along, or what older releases
# took, and what decides nothing about the model that comes out.
WITHOUT_EFFECT = frozenset(
    {
        "_commit_hash",
        "_fast_init",
        "_from_auto",
        "_from_pipeline",
        "adapter_kwargs",
        "allow_all_kernels",
        "code_revision",
        "disable_mmap",
        "from_flax",
        "from_tf",
        "low_cpu_mem_usage",
        "mirror",
        "offload_state_dict",
        "proxies",
        "resume_download",
        "tqdm_class",
        "trust_remote_code",
    }
)

# Options that would change the model, so ignoring one would be a wrong model without a word.
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
    """Every option, with its default; the names and meanings are those of stock's newest release.

    `overrides` holds what is no option: config overrides first, then the model's own arguments.
    """

    model_class: type | None = None
    config: Any = None
    state_dict: Mapping[str, Any] | None = None
    dtype: Any = "auto"
    device_map: Any = None
    max_memory: Mapping[Any, Any] | None = None
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
    attn_implementation: Any = None
    generation_config: Any = None
    output_loading_info: bool = False
    strict: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Sort keyword arguments into options and overrides.

        Raises:
            UnsupportedOption: an argument that would change the model and is not carried out.
        """
        for name in sorted(REFUSED & given.keys()):
            if given[name]:
                raise UnsupportedOption(
                    f"The option {name!r} is not carried out by this loader.",
                    "Load with transformers itself, or leave the option out.",
                )
        named = {name: value for name, value in given.items() if name in cls.names()}
        rest = given.keys() - named.keys() - WITHOUT_EFFECT - REFUSED - {"torch_dtype"}
        if given.get("dtype") is None and given.get("torch_dtype") is not None:
            named["dtype"] = given["torch_dtype"]
        return cls(**named, overrides={name: given[name] for name in given if name in rest})

    @classmethod
    def names(cls) -> frozenset[str]:
        """The names of all options."""
        return frozenset(f.name for f in fields(cls)) - {"overrides"}


def documented(function: Callable[..., Any]) -> Callable[..., Any]:
    """Show every option and its default in the signature of `function`."""
    shown = list(inspect.signature(function).parameters.values())
    options = [
        inspect.Parameter(
            f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type
        )
        for f in fields(Options)
        if f.name != "overrides"
    ]
    parameters = [*shown[:-1], *options, shown[-1].replace(name="overrides")]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return function
