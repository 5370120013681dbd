"""The switch for everything that this loader does for speed alone, and the parts that need no plan.

Fast code is never the only code: `plain()`, or the environment variable FROM_PRETRAINED_PLAIN=1,
turns all of it off, and the whole conformance suite passes either way.

| what | where |
|---|---|
| worker threads, the pinned ring, direct reads | `plan.workers`, `fill.ring`, `fill.copies` |
| initialisers skipped for parameters without memory | `initialisers_skipped` |
| garbage collection deferred to the end of a load | `collection_deferred` |
| the CUDA context created while the load is planned | `context_made_early` |
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_module

_plain = ContextVar("plain", default=False)


def fast() -> bool:
    """Whether this thread's loads may use the fast paths, which are for speed alone."""
    return not _plain.get() and os.environ.get("FROM_PRETRAINED_PLAIN", "0") in ("", "0")


@contextmanager
def plain() -> Iterator[None]:
    """Load without any of the fast paths, which are for speed alone; the models are the same.

    Applies to this thread (and to this task of asyncio) alone; the environment variable
    FROM_PRETRAINED_PLAIN=1 applies to the whole process.

    Example:
        >>> import reference_loader
        >>> with reference_loader.plain():
        ...     model = reference_loader.from_pretrained(folder)
    """
    before = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(before)


@contextmanager
def collection_deferred() -> Iterator[None]:
    """For speed: no garbage is collected in the block, as nearly all objects of a load stay.

    Of several threads the first to end switches the collection on again.
    """
    wanted = fast() and gc.isenabled()
    if wanted:
        gc.disable()
    try:
        yield
    finally:
        if wanted:
            gc.enable()


@contextmanager
def context_made_early(device_map: Any) -> Iterator[None]:
    """For speed: make the CUDA context beside the block if `device_map` names a CUDA device.

    An error of the device is ignored here; it is raised where the device is used.
    """
    device = _cuda_device(device_map) if fast() and torch.cuda.is_available() else None
    if device is None or torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        yield
        return
    with ThreadPoolExecutor(1) as beside:
        beside.submit(_make_context, device)
        yield


def _cuda_device(device_map: Any) -> torch.device | None:
    """The CUDA device that `device_map` is, to make its context early; None if it is none."""
    with suppress(RuntimeError, TypeError, ValueError):
        number = type(device_map) is int
        device = torch.device("cuda", device_map) if number else torch.device(device_map)
        return device if device.type == "cuda" else None
    return None


def _make_context(device: torch.device) -> None:
    """Make the device's CUDA context, in a thread beside the load, for speed."""
    torch.empty(0, device=device)


# What gives a module, or a whole model, its first values, and whose implementations are skipped.
# By the module of the function: a class of the same library may have another of that name.
INITIALISERS = {
    "reset_parameters": "torch.nn.modules.",
    "initialize_weights": "transformers.modeling_utils",
}


@contextmanager
def initialisers_skipped() -> Iterator[None]:
    """For speed: skip initialisers of torch and transformers for modules this thread makes.

    For a block in which no parameter has memory. A class's own initialiser runs as ever, and so
    does that of a module with buffers: it may compute them. `restore_initialisers` undoes it.
    """
    if not fast():
        yield
        return
    thread = threading.get_ident()

    def skip(owner: nn.Module, _: str, __: object) -> None:
        if threading.get_ident() == thread and not owner._buffers:
            for name in _library_initialisers(type(owner)):  # type: ignore[arg-type]
                owner.__dict__.setdefault(name, _do_not_initialise)

    def keep(owner: nn.Module, _: str, __: object) -> None:
        if threading.get_ident() == thread:
            restore_initialisers(owner)

    hooks = [
        torch_module.register_module_parameter_registration_hook(skip),
        torch_module.register_module_module_registration_hook(skip),
        torch_module.register_module_buffer_registration_hook(keep),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def restore_initialisers(module: nn.Module) -> None:
    """Have the skipped initialisers of one module run again when they are called."""
    for name in INITIALISERS:
        if module.__dict__.get(name) is _do_not_initialise:
            del module.__dict__[name]


@cache
def _library_initialisers(kind: type) -> tuple[str, ...]:
    """The names of a class's initialisers that torch or transformers wrote: those skipped."""

    def module_of(name: str) -> str:
        return getattr(getattr(kind, name, None), "__module__", "")

    return tuple(n for n, library in INITIALISERS.items() if module_of(n).startswith(library))


def _do_not_initialise(*_: object, **__: object) -> None:
    """What runs in place of an initialiser that is skipped for speed."""
