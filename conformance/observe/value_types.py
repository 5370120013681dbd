"""The types of what a load returns beside its tensors: as JSON, a tuple is a list, a dtype text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Fields of a config that say where it came from.
LEFT_OUT = ("_name_or_path", "_commit_hash", "transformers_version")


def observe_types(result: Any, model: Any) -> dict[str, str]:
    """Place to the type that stands there: in the config, the generation config, the device map,
    and the loading info."""
    found: dict[str, str] = {"(result)": _name(result) if isinstance(result, tuple) else "a model"}
    for name in ("config", "generation_config"):
        found |= _of_fields(name, getattr(model, name, None))
    found |= _of_fields("device map", getattr(model, "hf_device_map", None))
    if isinstance(result, tuple):
        info = result[1] if len(result) > 1 else None
        found["loading info"] = _name(info)
        for field, entries in info.items() if isinstance(info, Mapping) else ():
            found[f"{field} entries"] = ", ".join(sorted(set(map(_shape, entries))))
    return found


def _of_fields(name: str, value: Any) -> dict[str, str]:
    """The type of a value and of everything in it, each by its place."""
    found = {name: _name(value)}
    if hasattr(value, "to_dict"):
        inner: Mapping[Any, Any] = {k: v for k, v in vars(value).items() if k not in LEFT_OUT}
    elif isinstance(value, Mapping):
        inner = value
    elif isinstance(value, (list, tuple)):
        inner = dict(enumerate(value))
    else:
        return found
    for key, each in inner.items():
        told = key if isinstance(key, str) else f"{_name(key)} {key!r}"
        found |= _of_fields(f"{name}.{told}", each)
    return found


def _shape(value: Any) -> str:
    """The type of an entry, and the types in it if it is a tuple or a list; a shape is one type."""
    if type(value) in (tuple, list):
        return f"{_name(value)} of {', '.join(map(_name, value))}"
    return _name(value)


def _name(value: Any) -> str:
    """The name of the value's type, which need not be a subclass with the same behaviour."""
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
