"""Mutants that misbehave only where two options meet, or in the plain call without loading info.

Each is right in every load with one of its two options, so no table that varies one option at a
time can tell it from stock. A case in which it shows is found in the table of pairs by its values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from conformance.cases.combo import case_with
from conformance.mutants.planting import Act, Load, Mutant, coming_out, going_in

# How a loader sees each value of `conformance.cases.combo.FACTORS`.
SEEN: Mapping[str, Callable[[Load], Any]] = MappingProxyType(
    {
        "plain": lambda load: not load.options.get("output_loading_info"),
        "info": lambda load: load.options.get("output_loading_info"),
        "head": lambda load: getattr(load.model_class, "__name__", "").endswith("ForCausalLM"),
        "base": lambda load: getattr(load.model_class, "__name__", "") == "LlamaModel",
        "auto": lambda load: getattr(load.model_class, "__name__", "").startswith("Auto"),
        "unnamed": lambda load: load.model_class is None,
        "cast": lambda load: isinstance(_dtype(load), torch.dtype),
        "named": lambda load: isinstance(_dtype(load), str),
        "old": lambda load: "torch_dtype" in load.options,
        "autodtype": lambda load: _dtype(load) == "auto",
        "mapped": lambda load: "key_mapping" in load.options,
        "placed": lambda load: "device_map" in load.options,
        "dict": lambda load: isinstance(load.options.get("device_map"), Mapping),
        "disk": lambda load: "offload_folder" in load.options,
        "fp16": lambda load: "variant" in load.options,
        "inner": lambda load: "subfolder" in load.options,
        "eager": lambda load: load.options.get("attn_implementation") == "eager",
        "safetensors": lambda load: load.options.get("use_safetensors") is True,
        "pickle": lambda load: load.options.get("use_safetensors") is False,
        "ignoring": lambda load: load.options.get("ignore_mismatched_sizes"),
        "memory": lambda load: load.options.get("state_dict") is not None,
        "epsilon": lambda load: "rms_norm_eps" in load.options,
        "tied": lambda load: getattr(load.model.config, "tie_word_embeddings", False),
    }
)


def _dtype(load: Load) -> Any:
    """The dtype that is asked for under its new name."""
    return load.options.get("dtype")


def _without(option: str) -> Act:
    """The load has the option no longer."""

    def act(load: Load) -> None:
        load.options.pop(option, None)

    return act


def _with(**options: Any) -> Act:
    """The load has other options."""
    return lambda load: load.options.update(options)


def _embedding(load: Load) -> nn.Parameter:
    """The embedding of the loaded model."""
    weight: nn.Parameter = load.base.embed_tokens.weight
    return weight


def _zeroed(load: Load) -> None:
    """The up projection of the first layer is zero."""
    load.base.layers[0].mlp.up_proj.weight.zero_()


def _exchanged(load: Load) -> None:
    """Gate and up projection of the first layer are exchanged."""
    mlp = load.base.layers[0].mlp
    mlp.gate_proj, mlp.up_proj = mlp.up_proj, mlp.gate_proj


def _untied(load: Load) -> None:
    """The head is a copy of the embedding."""
    if hasattr(load.model, "lm_head"):
        load.model.lm_head.weight = nn.Parameter(_embedding(load).clone())


def _widened(load: Load) -> None:
    """The final norm is float32."""
    load.base.norm.weight.data = load.base.norm.weight.data.float()


def _rounded(load: Load) -> None:
    """The embedding has passed through an eighth of its precision."""
    _embedding(load).data = _embedding(load).data.to(torch.float8_e5m2).to(_embedding(load).dtype)


def _narrow_buffers(load: Load) -> None:
    """Every floating buffer is float16."""
    for buffer in load.model.buffers():
        if buffer.is_floating_point():
            buffer.data = buffer.data.half()


def _training(load: Load) -> None:
    """The model is in training mode."""
    load.model.train()


def _no_generation_config(load: Load) -> None:
    """The generation config is that of the config."""
    if getattr(load.model, "generation_config", None) is not None:
        load.model.generation_config.max_new_tokens = None


def _clean_report(load: Load) -> None:
    """The loading info says that nothing is missing, left over or mismatched."""
    for field in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if field in load.info:
            load.info[field] = set()


def _stale_config(load: Load) -> None:
    """The config does not name its source."""
    load.model.config._name_or_path = ""


def _used_up(load: Load) -> None:
    """The caller's key mapping is empty after the load."""
    load.options["key_mapping"].clear()


def _written_to(load: Load) -> None:
    """The caller's device map has an entry more after the load."""
    load.options["device_map"]["seen"] = "cpu"


def _emptied(load: Load) -> None:
    """The caller's state dict is empty after the load."""
    load.options["state_dict"].clear()


def _copied_entry(load: Load) -> None:
    """One tensor of the caller's state dict is replaced by an equal one."""
    given = load.options["state_dict"]
    key = next(iter(given))
    given[key] = given[key].clone()


def _written_tensor(load: Load) -> None:
    """A tensor of the caller's state dict is zero after the load."""
    next(iter(load.options["state_dict"].values())).zero_()


# Values of `FACTORS` with which a loader sees each word of `SEEN`.
Values = Sequence[str]
CHOSEN: Mapping[str, Mapping[str, Values]] = MappingProxyType(
    {
        "plain": {"info": ("plain",)},
        "info": {"info": ("info",)},
        "head": {"class": ("head",)},
        "base": {"class": ("base",)},
        "auto": {"class": ("auto",)},
        "unnamed": {"class": ("unnamed",)},
        "cast": {"dtype": ("bfloat16", "float16")},
        "named": {"dtype": ("bfloat16name",)},
        "old": {"dtype": ("olddtype",)},
        "autodtype": {"dtype": ("autodtype",)},
        "mapped": {"mapping": ("mapped",)},
        "placed": {"map": ("cpu", "device", "whole", "split")},
        "dict": {"map": ("whole", "split")},
        "disk": {"map": ("disk",)},
        "fp16": {"variant": ("fp16",)},
        "inner": {"subfolder": ("inner",)},
        "eager": {"attention": ("eager",)},
        "safetensors": {"format": ("safetensors",)},
        "pickle": {"format": ("pickle",)},
        "ignoring": {"sizes": ("ignoring",)},
        "memory": {"source": ("memory",)},
        "epsilon": {"field": ("epsilon",)},
        "tied": {"recipe": ("tied",)},
    }
)

MISMATCH, MISSING, EXTRA = (
    {"recipe": ("mismatch",)},
    {"recipe": ("missing",)},
    {"recipe": ("unexpected",)},
)
BF16, GENERATION = {"recipe": ("bf16",)}, {"recipe": ("generation",)}
FLOAT32 = {"recipe": ("single", "sharded", "unexpected", "mismatch", "missing", "tied")}
SHARDED_HEAD = {"class": ("head", "auto", "unnamed"), "recipe": ("sharded",)}

# Name of the mutant and its clause; whether it acts on what goes in or comes out, and how; the
# words of `SEEN` that must meet; and further values of `FACTORS` that choose its case.
IN, OUT = going_in, coming_out
Row = tuple[str, str, Any, Act, tuple[str, ...], Mapping[str, Values]]

NO_DTYPE = _without("dtype")
NO_OLD_DTYPE = _without("torch_dtype")
NO_ATTENTION = _without("attn_implementation")
NO_MAPPING = _without("key_mapping")
NO_VARIANT = _without("variant")
NO_SUBFOLDER = _without("subfolder")
NO_FIELD = _without("rms_norm_eps")
NO_SIZES = _without("ignore_mismatched_sizes")
NO_MAP = _without("device_map")
MORE_INFO = _with(output_loading_info=True)

ROWS: tuple[Row, ...] = (
    # The plain call, which asks for no loading info.
    ("not_cast_without_info", "DTY-3", IN, NO_DTYPE, ("plain", "cast"), {}),
    ("name_of_dtype_lost_without_info", "DTY-3", IN, NO_DTYPE, ("plain", "named"), FLOAT32),
    ("old_dtype_lost_without_info", "DTY-4", IN, NO_OLD_DTYPE, ("plain", "old"), {}),
    ("float32_without_info", "DTY-1", IN, _with(dtype=torch.float32), ("plain",), BF16),
    ("mismatch_zeroed_without_info", "MIS-5", OUT, _zeroed, ("plain", "ignoring"), MISMATCH),
    ("untied_without_info", "TIE-1", OUT, _untied, ("plain", "tied"), {}),
    ("training_without_info", "OUT-4", OUT, _training, ("plain",), {}),
    ("exchanged_without_info", "MAP-1", OUT, _exchanged, ("plain",), {}),
    ("generation_lost_without_info", "CFG-4", OUT, _no_generation_config, ("plain",), GENERATION),
    ("source_lost_without_info", "CFG-8", OUT, _stale_config, ("plain",), {}),
    ("attention_lost_without_info", "CFG-9", IN, NO_ATTENTION, ("plain", "eager"), {}),
    ("variant_lost_without_info", "RES-7", IN, NO_VARIANT, ("plain", "fp16"), {}),
    ("mapping_lost_without_info", "MAP-6", IN, NO_MAPPING, ("plain", "mapped"), {}),
    ("map_lost_without_info", "OFF-1", IN, NO_MAP, ("plain", "disk"), {}),
    ("field_lost_without_info", "CFG-3", IN, NO_FIELD, ("plain", "epsilon"), {}),
    ("info_although_not_asked_for", "INF-4", IN, MORE_INFO, ("plain", "cast"), {}),
    # With the loading info.
    ("clean_report_of_a_base", "INF-2", OUT, _clean_report, ("info", "base"), MISSING),
    ("clean_report_if_sizes_may_differ", "INF-3", OUT, _clean_report, ("info", "ignoring"), EXTRA),
    ("rounded_with_info", "MAP-1", OUT, _rounded, ("info",), SHARDED_HEAD),
    # Auto classes and the class of the config.
    ("dtype_lost_by_auto_class", "DTY-3", IN, NO_DTYPE, ("auto", "cast"), {}),
    ("old_dtype_lost_by_auto_class", "DTY-4", IN, NO_OLD_DTYPE, ("auto", "old"), {}),
    ("attention_lost_by_auto_class", "CFG-9", IN, NO_ATTENTION, ("auto", "eager"), {}),
    ("mapping_lost_by_auto_class", "MAP-6", IN, NO_MAPPING, ("auto", "mapped"), {}),
    ("variant_lost_by_auto_class", "RES-7", IN, NO_VARIANT, ("auto", "fp16"), {}),
    ("subfolder_lost_by_auto_class", "RES-6", IN, NO_SUBFOLDER, ("auto", "inner"), {}),
    ("field_lost_by_auto_class", "CFG-3", IN, NO_FIELD, ("auto", "epsilon"), {}),
    ("sizes_refused_by_auto_class", "MIS-5", IN, NO_SIZES, ("auto", "ignoring"), MISMATCH),
    ("generation_lost_by_auto_class", "CFG-4", OUT, _no_generation_config, ("auto",), GENERATION),
    ("untied_by_auto_class", "TIE-1", OUT, _untied, ("auto", "tied"), {}),
    ("dtype_lost_by_named_class", "DTY-3", IN, NO_DTYPE, ("unnamed", "cast"), {}),
    ("base_not_cast", "DTY-3", IN, NO_DTYPE, ("base", "named"), {}),
    ("attention_lost_by_base", "CFG-9", IN, NO_ATTENTION, ("base", "eager"), {}),
    # Device maps.
    ("mapping_lost_under_a_map", "MAP-6", IN, NO_MAPPING, ("mapped", "placed"), {}),
    ("mismatch_zeroed_under_a_map", "MIS-5", OUT, _zeroed, ("ignoring", "placed"), MISMATCH),
    ("dtype_lost_under_a_map", "DTY-3", IN, NO_DTYPE, ("dict", "cast"), {}),
    ("dtype_lost_under_offload", "DTY-3", IN, NO_DTYPE, ("disk", "cast"), {}),
    ("attention_lost_under_a_map", "CFG-9", IN, NO_ATTENTION, ("placed", "eager"), {}),
    ("untied_under_a_map", "TIE-1", OUT, _untied, ("placed", "tied"), {}),
    ("variant_lost_under_a_map", "RES-7", IN, NO_VARIANT, ("placed", "fp16"), {}),
    ("training_under_offload", "OUT-4", OUT, _training, ("disk",), {}),
    # A cast beside something else.
    ("untied_by_a_cast", "TIE-1", OUT, _untied, ("cast", "tied"), {}),
    ("norm_wide_after_a_tied_cast", "DTY-3", OUT, _widened, ("cast", "tied"), {}),
    ("mismatch_zeroed_by_a_cast", "MIS-5", OUT, _zeroed, ("cast", "ignoring"), MISMATCH),
    ("buffers_cast_under_eager", "DTY-3", OUT, _narrow_buffers, ("cast", "eager"), {}),
    ("dtype_lost_with_a_variant", "DTY-3", IN, NO_DTYPE, ("fp16", "cast"), {}),
    ("dtype_lost_in_a_subfolder", "DTY-3", IN, NO_DTYPE, ("inner", "named"), {}),
    ("dtype_lost_from_memory", "DTY-3", IN, NO_DTYPE, ("memory", "cast"), {}),
    ("dtype_lost_from_pickle", "DTY-3", IN, NO_DTYPE, ("pickle", "cast"), {}),
    ("dtype_lost_with_a_mapping", "DTY-3", IN, NO_DTYPE, ("mapped", "named"), {}),
    ("dtype_lost_with_a_field", "DTY-4", IN, NO_OLD_DTYPE, ("epsilon", "old"), {}),
    # Files and names.
    ("variant_lost_in_a_subfolder", "RES-7", IN, NO_VARIANT, ("fp16", "inner"), {}),
    ("mapping_lost_with_a_variant", "MAP-6", IN, NO_MAPPING, ("info", "mapped", "fp16"), {}),
    ("mapping_lost_from_memory", "MAP-6", IN, NO_MAPPING, ("mapped", "memory"), {}),
    ("field_lost_in_a_subfolder", "CFG-3", IN, NO_FIELD, ("epsilon", "inner"), {}),
    # What the caller passed.
    ("mapping_used_up", "CFG-40", OUT, _used_up, ("mapped",), {}),
    ("device_map_written_to", "CFG-40", OUT, _written_to, ("dict",), {}),
    ("state_dict_emptied", "CFG-40", OUT, _emptied, ("memory",), {}),
    ("state_dict_entry_replaced", "CFG-40", OUT, _copied_entry, ("memory",), {}),
    ("state_dict_tensor_written_to", "CFG-40", OUT, _written_tensor, ("memory",), {}),
)  # fmt: skip


def _mutant(row: Row) -> Mutant:
    """The mutant of a row of the table."""
    name, clause, planted, act, where, more = row
    values = {k: v for word in where for k, v in CHOSEN[word].items()} | dict(more)
    case = case_with(clause, **values)

    def only_there(load: Load) -> None:
        if all(SEEN[word](load) for word in where):
            act(load)

    condition = ", ".join(where)
    told = (act.__doc__ or "An option is lost or another is added.").strip()
    only_there.__name__ = name
    only_there.__doc__ = f"Where these meet ({condition}): {told[0].lower()}{told[1:]}"
    mutant: Mutant = planted(clause, case.id)(only_there)
    return mutant


MUTANTS: tuple[Mutant, ...] = tuple(map(_mutant, ROWS))
