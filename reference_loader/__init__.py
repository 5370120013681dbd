"""The reference loader: plain code that keeps the specification of `from_pretrained`.

This file holds the public functions with every option written out: a table to look up rather than
code to read. Both pass their arguments on as `Options`; a test holds that the signatures and
`Options` agree. The whole load is one page, `load.py`; `docs/reading.md` gives an order for the
rest. Importing this package does not import transformers; loading a transformers model does.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any, Literal, overload

from torch import nn

from reference_loader.errors import LoadError
from reference_loader.in_place import in_place_of_stock
from reference_loader.load import Loaded, load_model, plan_load
from reference_loader.options import (
    AUTO,
    ConfigObject,
    ConfigSource,
    DeviceMap,
    Dtype,
    MaxMemory,
    Options,
    Source,
)
from reference_loader.plan.plan import LoadPlan
from reference_loader.speed import plain

__all__ = ["LoadError", "LoadPlan", "from_pretrained", "in_place_of_stock", "plain", "plan"]


@overload
def from_pretrained(
    source: Source | None,
    *model_args: Any,
    model_class: type | None = None,
    config: ConfigSource | None = None,
    state_dict: Mapping[str, Any] | None = None,
    dtype: Dtype | None = AUTO,
    device_map: DeviceMap | None = None,
    max_memory: MaxMemory | None = None,
    offload_folder: str | PathLike[str] | None = None,
    offload_buffers: bool = False,
    subfolder: str = "",
    variant: str | None = None,
    revision: str = "main",
    cache_dir: str | PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    use_safetensors: bool | None = None,
    weights_only: bool = True,
    ignore_mismatched_sizes: bool = False,
    key_mapping: Mapping[str, str] | None = None,
    attn_implementation: str | Mapping[str, str] | None = None,
    generation_config: ConfigObject | None = None,
    quantization_config: Any = None,
    gguf_file: str | None = None,
    tp_plan: str | Mapping[str, str] | None = None,
    distributed_config: Any = None,
    trust_remote_code: bool = False,
    code_revision: str | None = None,
    output_loading_info: Literal[False] = False,
    strict: bool = False,
    **kwargs: Any,
) -> nn.Module: ...


@overload
def from_pretrained(
    source: Source | None,
    *model_args: Any,
    model_class: type | None = None,
    config: ConfigSource | None = None,
    state_dict: Mapping[str, Any] | None = None,
    dtype: Dtype | None = AUTO,
    device_map: DeviceMap | None = None,
    max_memory: MaxMemory | None = None,
    offload_folder: str | PathLike[str] | None = None,
    offload_buffers: bool = False,
    subfolder: str = "",
    variant: str | None = None,
    revision: str = "main",
    cache_dir: str | PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    use_safetensors: bool | None = None,
    weights_only: bool = True,
    ignore_mismatched_sizes: bool = False,
    key_mapping: Mapping[str, str] | None = None,
    attn_implementation: str | Mapping[str, str] | None = None,
    generation_config: ConfigObject | None = None,
    quantization_config: Any = None,
    gguf_file: str | None = None,
    tp_plan: str | Mapping[str, str] | None = None,
    distributed_config: Any = None,
    trust_remote_code: bool = False,
    code_revision: str | None = None,
    output_loading_info: Literal[True],
    strict: bool = False,
    **kwargs: Any,
) -> tuple[nn.Module, dict[str, Any]]: ...


def from_pretrained(
    source: Source | None,
    *model_args: Any,
    model_class: type | None = None,
    config: ConfigSource | None = None,
    state_dict: Mapping[str, Any] | None = None,
    dtype: Dtype | None = AUTO,
    device_map: DeviceMap | None = None,
    max_memory: MaxMemory | None = None,
    offload_folder: str | PathLike[str] | None = None,
    offload_buffers: bool = False,
    subfolder: str = "",
    variant: str | None = None,
    revision: str = "main",
    cache_dir: str | PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    use_safetensors: bool | None = None,
    weights_only: bool = True,
    ignore_mismatched_sizes: bool = False,
    key_mapping: Mapping[str, str] | None = None,
    attn_implementation: str | Mapping[str, str] | None = None,
    generation_config: ConfigObject | None = None,
    quantization_config: Any = None,
    gguf_file: str | None = None,
    tp_plan: str | Mapping[str, str] | None = None,
    distributed_config: Any = None,
    trust_remote_code: bool = False,
    code_revision: str | None = None,
    output_loading_info: bool = False,
    strict: bool = False,
    **kwargs: Any,
) -> Loaded:
    """Load a checkpoint into a model of the class that transformers would return.

    It replaces `PreTrainedModel.from_pretrained`: same options, same result. A code such as RES-6
    is a clause of the specification; `conformance spec RES-6` prints it.

    Args:
        source: a folder with `config.json` and weights (RES-1), one weight file (RES-9), or the
            repository id of the Hub, `name` or `owner/name` (RES-14). None with `state_dict`.
        *model_args: positional arguments of the model class, after its config.
        model_class: a subclass of `PreTrainedModel`, an Auto class, or
            `reference_loader.llama.Llama`. None: the first class of transformers that the config's
            `architectures` names (CFG-5, CFG-12, CFG-13).
        config: a config object, which is copied (CFG-2); a folder or repository id to read
            `config.json` from (CFG-21); for `Llama` also a mapping. None: the `config.json` of
            `source`.
        state_dict: tensors by name to load instead of files; needs `config`, and `source` must be
            None (RES-10, RES-11).
        dtype: the floating-point dtype of the model, a `torch.dtype` or its name. "auto" and None:
            what the config declares, else the dtype of the first floating tensor (DTY-1 to DTY-6).
        device_map: a device, its name or number; a mapping of module names to devices or "disk";
            or "auto", "balanced", "balanced_low_0", "sequential", by the budgets of `max_memory`.
            None: torch's default device (PLC-1, PLC-5).
        max_memory: device to budget, in bytes or as text such as "24GiB" (PLC-8, PLC-10).
        offload_folder: where to write weights whose module is on disk and that the checkpoint does
            not hold in the form needed (OFF-3, OFF-7).
        offload_buffers: also offload the buffers of modules on disk (OFF-8).
        subfolder: the folder inside `source` that holds config and weights (RES-6).
        variant: "fp16" selects `model.fp16.safetensors` (RES-7).
        revision: a branch, tag or commit of the repository (RES-14, RES-15).
        cache_dir: the Hub's cache. None: the default of `huggingface_hub`.
        token: a Hub token; True or None: the stored one; False: none.
        local_files_only: read the cache and send no request (RES-16).
        force_download: download again what the cache holds (RES-16).
        use_safetensors: True: safetensors only; False: pickled files only. None: safetensors first
            (RES-3, RES-8).
        weights_only: refuse a pickled file that would run code (FMT-5).
        ignore_mismatched_sizes: initialise a parameter whose stored tensor has another shape,
            instead of raising ShapeMismatch (MIS-4, MIS-5).
        key_mapping: regular expression to replacement, applied in order to each stored key (MAP-6).
        attn_implementation: the attention that the model runs, such as "eager" or "sdpa" (CFG-9).
        generation_config: replaces the generation config of the checkpoint (CFG-4).
        quantization_config: not supported; any true value raises UnsupportedOption.
        gguf_file: not supported; any true value raises UnsupportedOption.
        tp_plan: not supported; any true value raises UnsupportedOption.
        distributed_config: not supported; any true value raises UnsupportedOption.
        trust_remote_code: run code that the checkpoint brings or names: config class, model class,
            `generate`, attention kernel (FMT-23). Without it none is imported, nothing asks, and a
            load that needs code raises RemoteCodeRefused (FMT-22).
        code_revision: the branch, tag or commit of code in another repository; only with
            `trust_remote_code` (FMT-23). None: its main branch.
        output_loading_info: also return the loading info (INF-1 to INF-5).
        strict: raise NotStrict unless checkpoint and model have exactly the same tensors (INF-6).
        **kwargs: a config field to override, else a keyword argument of the model class (CFG-3).
            `torch_dtype` is accepted for `dtype` (DTY-4, DTY-11). Names that only transformers'
            wrappers pass have no effect; other options of transformers that would change the model
            raise UnsupportedOption.

    Returns:
        The model in evaluation mode (OUT-4). Parameters have the dtype that `dtype` gives (DTY-9
        names the exceptions), the shape that the model class gives, and the device that
        `device_map` gives. With `output_loading_info` a pair of the model and a dict:
        `missing_keys` and `unexpected_keys` (sets of names), `mismatched_keys` (a set of name,
        stored shape, model shape) and `error_msgs` (an empty list).

    Raises:
        LoadError: a subclass that names the defect, see `reference_loader.errors`. Each is also the
            builtin exception that transformers documents for the defect: `OSError` for files that
            are absent or damaged, `ValueError` for options, config and index, `RuntimeError` for
            shapes, `TypeError` for unknown keyword arguments. The process is left as it was, and
            files that the load had written are removed (STA-2, OFF-9).

    Example:
        `folder` holds a small Llama in bfloat16, in two shards.

        >>> model = from_pretrained(folder, dtype="float32", attn_implementation="eager")
        >>> type(model).__name__, model.lm_head.weight.dtype
        ('LlamaForCausalLM', torch.float32)
        >>> model, info = from_pretrained(folder, output_loading_info=True)
        >>> sorted(info["missing_keys"]), model.lm_head.weight.dtype
        ([], torch.bfloat16)
    """
    options = Options.of(
        kwargs, model_class=model_class, config=config, state_dict=state_dict,
        dtype=dtype, device_map=device_map, max_memory=max_memory,
        offload_folder=offload_folder, offload_buffers=offload_buffers,
        subfolder=subfolder, variant=variant, revision=revision, cache_dir=cache_dir,
        token=token, local_files_only=local_files_only, force_download=force_download,
        use_safetensors=use_safetensors, weights_only=weights_only,
        ignore_mismatched_sizes=ignore_mismatched_sizes, key_mapping=key_mapping,
        attn_implementation=attn_implementation, generation_config=generation_config,
        quantization_config=quantization_config, gguf_file=gguf_file, tp_plan=tp_plan,
        distributed_config=distributed_config, trust_remote_code=trust_remote_code,
        code_revision=code_revision, output_loading_info=output_loading_info, strict=strict,
    )  # fmt: skip
    return load_model(source, model_args, options)


def plan(
    source: Source | None,
    *model_args: Any,
    model_class: type | None = None,
    config: ConfigSource | None = None,
    state_dict: Mapping[str, Any] | None = None,
    dtype: Dtype | None = AUTO,
    device_map: DeviceMap | None = None,
    max_memory: MaxMemory | None = None,
    offload_folder: str | PathLike[str] | None = None,
    offload_buffers: bool = False,
    subfolder: str = "",
    variant: str | None = None,
    revision: str = "main",
    cache_dir: str | PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    use_safetensors: bool | None = None,
    weights_only: bool = True,
    ignore_mismatched_sizes: bool = False,
    key_mapping: Mapping[str, str] | None = None,
    attn_implementation: str | Mapping[str, str] | None = None,
    generation_config: ConfigObject | None = None,
    quantization_config: Any = None,
    gguf_file: str | None = None,
    tp_plan: str | Mapping[str, str] | None = None,
    distributed_config: Any = None,
    trust_remote_code: bool = False,
    code_revision: str | None = None,
    output_loading_info: bool = False,
    strict: bool = False,
    **kwargs: Any,
) -> LoadPlan:
    """Decide a whole load from names, headers and config, and read no weight.

    Of a repository on the Hub, the files are downloaded first.

    Args:
        source: see `from_pretrained`, as for every other argument. `output_loading_info` and
            `strict` change nothing here: the plan lists what they would report.

    Returns:
        The plan: `str(plan)` is a table, `plan.to_dict()` is JSON.

    Raises:
        LoadError: as `from_pretrained` does, except for tensors of another shape, devices over
            their budget, and what `strict` refuses. The plan lists these.

    Example:
        >>> decided = plan(folder, dtype="float32")
        >>> decided.dtype, len(decided.files), decided.disagreements
        (torch.float32, 2, {})
    """
    options = Options.of(
        kwargs, model_class=model_class, config=config, state_dict=state_dict,
        dtype=dtype, device_map=device_map, max_memory=max_memory,
        offload_folder=offload_folder, offload_buffers=offload_buffers,
        subfolder=subfolder, variant=variant, revision=revision, cache_dir=cache_dir,
        token=token, local_files_only=local_files_only, force_download=force_download,
        use_safetensors=use_safetensors, weights_only=weights_only,
        ignore_mismatched_sizes=ignore_mismatched_sizes, key_mapping=key_mapping,
        attn_implementation=attn_implementation, generation_config=generation_config,
        quantization_config=quantization_config, gguf_file=gguf_file, tp_plan=tp_plan,
        distributed_config=distributed_config, trust_remote_code=trust_remote_code,
        code_revision=code_revision, output_loading_info=output_loading_info, strict=strict,
    )  # fmt: skip
    return plan_load(source, model_args, options)
