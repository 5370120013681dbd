"""What a constructor asks of torch: values of weights that have none, or too much memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch

from reference_loader.errors import BadConfig
from reference_loader.model.draws import DrawsApart

# What takes nothing but shape, dtype and device from a tensor that it is given.
_SHAPE_ALONE = ("_like", "_as")


# What fills new memory; `torch.empty` does not touch it.
_FILLING = {
    *(torch.arange, torch.eye, torch.full, torch.linspace, torch.logspace, torch.ones, torch.rand),
    *(torch.randint, torch.randn, torch.randperm, torch.zeros),
}


class Bounds(NamedTuple):
    """What a model may have at most, so that nothing larger is made for a config that is wrong.

    Attributes:
        parameters: their number.
        nbytes: of a tensor that is not a parameter, and of all parameters that have memory.
    """

    parameters: int = sys.maxsize
    nbytes: int = sys.maxsize


NO_BOUNDS = Bounds()


class ValuesAsked(DrawsApart):
    """Within, notes that this thread uses values of tensors on meta; and draws are kept apart.

    Some functions of torch raise then, and a constructor may catch that. Others, such as a product
    with a tensor that has memory, return memory that nothing has written to.

    Attributes:
        asked: whether it has happened.
    """

    def __init__(self, bounds: Bounds = NO_BOUNDS) -> None:
        super().__init__()
        self.asked = False
        self._bounds = bounds

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FILLING and self._bounds is not NO_BOUNDS:
            self._refuse_too_large(func, args, kwargs)
        given = (*args, *kwargs.values()) if kwargs else args
        if self.asked or not _has(given, meta=True):
            return super().__torch_function__(func, types, args, kwargs)
        try:
            result = super().__torch_function__(func, types, args, kwargs)
        except Exception:
            self.asked = True
            raise
        name = getattr(func, "__name__", "")
        if not (name.endswith(_SHAPE_ALONE) or name.startswith("new_")):
            self.asked = name == "data_ptr" or _has((result,), meta=False)
        return result

    def _refuse_too_large(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        elsewhere = {name: value for name, value in kwargs.items() if name != "generator"}
        try:
            nbytes = func(*args, **{**elsewhere, "device": "meta"}).nbytes
        except Exception:  # the call itself raises it once more, for the constructor
            return
        if nbytes > self._bounds.nbytes:
            raise BadConfig(
                f"torch.{func.__name__} would fill {nbytes:,} bytes, far more than the "
                "checkpoint holds.",
                "Check the sizes in the config.",
            )


def _has(values: Iterable[Any], *, meta: bool) -> bool:
    """Whether a tensor is among the values, or inside them, that is on meta; or that is not."""
    for value in values:
        if isinstance(value, torch.Tensor):
            if value.is_meta is meta:
                return True
        elif isinstance(value, (tuple, list)) and _has(value, meta=meta):
            return True
    return False
