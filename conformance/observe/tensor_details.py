"""Facts of the model's tensors that only absolute checks read: taken before the model runs.

Each case gets the facts that its clauses need and the cheap ones: statistics over the weights of a
large checkpoint would take longer than the load.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from conformance.cases.case import Case
from conformance.world.mapped_files import is_view, mapped

# Values of a buffer are noted up to this many elements.
MOST_VALUES = 4096


def observe_details(
    case: Case, source: Path, model: nn.Module, info: Mapping[str, Mapping[str, Any]] | None
) -> dict[str, dict[str, Any]]:
    """Facts of every parameter and buffer, by each of its names.

    Args:
        case: its clauses say which facts are needed.
        source: the checkpoint.
        model: what the load left.
        info: the loading info as `observe_info` gives it.

    Returns:
        Name to `object`, the first name of the same tensor object; `nbytes`, what its elements
        take; `kept`, the bytes of its storage; `inference`, whether it was made in inference mode;
        `nan`, whether a value is NaN. In cases of MEM-1 `mapped`, whether it is a view of a file of
        the checkpoint; of INI-1 the `values` of each small buffer; of MIS-1 the `mean`, `std` and
        `kurtosis` of each matrix that the loading info names, `least` and `most` of each vector.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    tensors = parameters | dict(model.named_buffers(remove_duplicate=False))
    spans = mapped(source) if "MEM-1" in case.clauses else []
    fresh = _listed(info) if "MIS-1" in case.clauses else set()
    facts: dict[str, dict[str, Any]] = {}
    first: dict[int, str] = {}
    for name, tensor in tensors.items():
        same = first.setdefault(id(tensor), name)
        if same != name:
            facts[name] = facts[same]
            continue
        facts[name] = {
            "object": name,
            "nbytes": tensor.nbytes,
            "kept": tensor.untyped_storage().nbytes(),
            "inference": tensor.is_inference(),
            "nan": _has_nan(tensor),
        }
        if "MEM-1" in case.clauses and name in parameters:
            facts[name]["mapped"] = is_view(tensor, spans)
        if "INI-1" in case.clauses and name not in parameters and tensor.numel() <= MOST_VALUES:
            facts[name]["values"] = tensor.double().reshape(-1).tolist()
    for name in fresh & parameters.keys():
        if not parameters[name].is_meta and parameters[name].numel():
            facts[name] = facts[name] | _statistics(parameters[name])
    return facts


def _has_nan(tensor: torch.Tensor) -> bool:
    if tensor.is_meta or not tensor.is_floating_point():
        return False
    # Floats of one byte have no comparison.
    return bool((tensor.float() if tensor.itemsize == 1 else tensor).isnan().any())


def _listed(info: Mapping[str, Mapping[str, Any]] | None) -> set[str]:
    """The names that the loading info has as missing or mismatched."""
    fields = ("missing_keys", "mismatched_keys")
    entries = (entry for field in fields for entry in (info or {}).get(field, {}).get("values", ()))
    return {entry.partition(" ")[0] for entry in entries}


def _statistics(parameter: torch.Tensor) -> dict[str, float]:
    values = parameter.detach().double()
    if values.ndim < 2:
        return {"least": values.min().item(), "most": values.max().item()}
    mean, deviation = values.mean().item(), values.std().item()
    kurtosis = ((values - mean) / deviation).pow(4).mean().item()
    return {"mean": mean, "std": deviation, "kurtosis": kurtosis}
