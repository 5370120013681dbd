"""The facts by which two loads are compared: plain data, no tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from conformance.results.fingerprint import fingerprints


def model_of(result: Any) -> nn.Module:
    """The model, alone or beside its loading info.

    Raises:
        TypeError: the loader returned no model.
    """
    model = result[0] if isinstance(result, tuple) and result else result
    if not isinstance(model, nn.Module):
        raise TypeError(f"the loader returned {type(model).__name__}, no module")
    return model


def observe_modules(model: nn.Module) -> dict[str, tuple[str, bool]]:
    """Class name and training flag of every module."""
    return {name: (type(m).__name__, m.training) for name, m in model.named_modules()}


def observe_config(model: Any) -> Any:
    """The config as plain data."""
    return _plain(model.config.to_dict()) if hasattr(model.config, "to_dict") else model.config


def observe_generation_config(model: Any) -> Any:
    """The generation config as plain data; None if the model has none."""
    generation = getattr(model, "generation_config", None)
    return None if generation is None else _plain(generation.to_dict())


def observe_device_map(model: Any) -> dict[str, str] | None:
    """Module to device; None if the model has no device map."""
    device_map = getattr(model, "hf_device_map", None)
    return None if device_map is None else {k: str(v) for k, v in device_map.items()}


def observe_tensors(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Facts of every parameter and every buffer, persistent or not."""
    facts: dict[str, dict[str, Any]] = {}
    stores: dict[tuple[bool, int], str] = {}
    persistent = set(model.state_dict(keep_vars=True))
    parameters = dict(model.named_parameters(remove_duplicate=False))
    tensors = parameters | dict(model.named_buffers(remove_duplicate=False))
    digests = fingerprints(tensors)
    for name, tensor in tensors.items():
        # An offloaded tensor has no memory; there one parameter is one storage.
        pointer = id(tensor) if tensor.is_meta else tensor.untyped_storage().data_ptr()
        # A tensor without elements shares none, whatever its pointer.
        shared = pointer and tensor.numel()
        facts[name] = {
            "kind": "parameter" if name in parameters else "buffer",
            "class": type(tensor).__name__,
            "persistent": name in persistent,
            "dtype": str(tensor.dtype),
            "shape": list(tensor.shape),
            "stride": list(tensor.stride()),
            "device": str(tensor.device),
            "requires_grad": tensor.requires_grad,
            "storage": stores.setdefault((tensor.is_meta, pointer), name) if shared else name,
            "fingerprint": digests[name],
        }
    return facts


def observe_info(result: Any) -> dict[str, dict[str, Any]] | None:
    """Loading info: field to container and values; None if none was returned."""
    if not isinstance(result, tuple):
        return None
    if not isinstance(result[1], Mapping):
        return {"(all)": {"container": type(result[1]).__name__, "values": []}}
    return {
        field: {"container": type(found).__name__, "values": sorted(map(_entry, found))}
        for field, found in result[1].items()
    }


def _entry(value: Any) -> str:
    """A key, or `name [stored shape] [model's shape]`; a bare name if there are no shapes."""
    if isinstance(value, (tuple, list)):
        return " ".join(str(list(p)) if isinstance(p, (tuple, list)) else str(p) for p in value)
    return str(value)


def unchanged(config: Any, before: str) -> str:
    """In words, whether the config object still has the same text."""
    return "unchanged" if text_of(config) == before else f"was {before}, is {text_of(config)}"


def text_of(config: Any) -> str:
    """The fields of a config object as text."""
    return json.dumps(_plain(config.to_dict()), sort_keys=True)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
