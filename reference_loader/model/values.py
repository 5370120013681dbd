"""Whether a constructor uses the values of weights that have none, since they are on meta."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from reference_loader.model.draws import DrawsApart

# What takes nothing but shape, dtype and device from a tensor that it is given.
_SHAPE_ALONE = ("_like", "_as")


class ValuesAsked(DrawsApart):
    """Within, notes that this thread uses values of tensors on meta; and draws are kept apart.

    Some functions of torch raise then, and a constructor may catch that. Others, such as a product
    with a tensor that has memory, return memory that nothing has written to.

    Attributes:
        asked: whether it has happened.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
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


def _has(values: Iterable[Any], *, meta: bool) -> bool:
    """Whether a tensor is among the values, or inside them, that is on meta; or that is not."""
    for value in values:
        if isinstance(value, torch.Tensor):
            if value.is_meta is meta:
                return True
        elif isinstance(value, (tuple, list)) and _has(value, meta=meta):
            return True
    return False
