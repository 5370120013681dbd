"""Random numbers that a constructor draws, kept from the process's generator (STA-1).

Putting the generator back afterwards would do the same for one thread, and have every other one
draw its numbers a second time.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

SEEDED = torch.Tag.nondeterministic_seeded


class DrawsApart(TorchFunctionMode):
    """Within, what this thread draws through torch comes from a generator of its own.

    It starts where the process's generator stands, so the numbers are those that would be drawn.
    """

    def __init__(self) -> None:
        super().__init__()
        self._own: torch.Generator | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        takes = _takes_generator(func)
        if takes is None or (kwargs and kwargs.get("generator") is not None):
            return func(*args, **(kwargs or {}))
        if self._own is None:
            self._own = torch.Generator()
            self._own.set_state(torch.get_rng_state())
        if takes:
            return func(*args, **{**(kwargs or {}), "generator": self._own})
        # Such as dropout: there is no other way to draw apart than to put the generator back.
        with torch.random.fork_rng(devices=()):
            return func(*args, **(kwargs or {}))


@cache
def _takes_generator(func: Callable[..., Any]) -> bool | None:
    """Whether a function of torch takes a generator; None for one that draws no numbers.

    Functions in Python, such as those of `torch.nn.init`, say so by their signature; the others by
    the tags and arguments of their operator.
    """
    if isinstance(func, FunctionType):
        with suppress(ValueError):  # it wraps one that is not in Python
            if "generator" in inspect.signature(func).parameters:
                return True
    packet: Any = getattr(torch.ops.aten, getattr(func, "__name__", ""), None)
    if type(packet).__name__ != "OpOverloadPacket":  # or a method of any object
        return None
    overloads = [getattr(packet, name) for name in packet.overloads()]
    if not any(SEEDED in overload.tags for overload in overloads):
        return None
    return any(a.name == "generator" for each in overloads for a in each._schema.arguments)
