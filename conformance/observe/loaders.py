"""The loaders that can be judged: anything with `from_pretrained`'s signature."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from reference_loader import from_pretrained

Loader = Callable[..., Any]


class UnknownLoader(ValueError):
    """There is no loader of this name."""


def stock(model_class: Any, source: str | None, **options: Any) -> Any:
    """The installed transformers; without a class, the one that the config names.

    Some types share the class of another, which would read their config as its own: it is given.
    """
    if model_class is None and source is not None:
        trusted = options.get("trust_remote_code") is True
        model_class, config = named_class(source, trusted, options.get("subfolder") or "")
        wanted = getattr(model_class, "config_class", None)
        if wanted is not None and not isinstance(config, wanted):
            options.setdefault("config", config)
    return model_class.from_pretrained(source, **options)


def reference(model_class: type | None, source: str | None, **options: Any) -> Any:
    """The reference loader."""
    return from_pretrained(source, model_class=model_class, **options)


def named_class(source: str, trusted: bool = False, subfolder: str = "") -> tuple[type, Any]:
    """The class that the first of the config's `architectures` names, and the config.

    If the code of the checkpoint is trusted and has that class: the Auto class that returns it.
    """
    import transformers

    config = transformers.AutoConfig.from_pretrained(
        source, trust_remote_code=trusted, subfolder=subfolder
    )
    code = getattr(config, "auto_map", None) or {}
    for name in config.architectures or ():
        for auto_class, reference in code.items() if trusted else ():
            if str(reference).endswith(f".{name}"):
                auto: type = getattr(transformers, auto_class)
                return auto, config
        if hasattr(transformers, name):
            found: type = getattr(transformers, name)
            return found, config
    raise ValueError(f"architectures={config.architectures!r} name no class of transformers")


def find(name: str) -> Loader:
    """`stock`, `reference`, or `MODULE:ATTR`: a callable `f(cls, path, **kwargs)`.

    Raises:
        UnknownLoader: there is no such callable.
    """
    if name in ("stock", "reference"):
        return {"stock": stock, "reference": reference}[name]
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as cause:
        raise UnknownLoader(f"{name!r} is not a loader: {cause}") from cause
    if not callable(found):
        raise UnknownLoader(f"{name!r} is not callable")
    return found  # type: ignore[no-any-return]
