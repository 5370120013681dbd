"""A state dict in memory, as one more thing to load from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from reference_loader.errors import BadOptions
from reference_loader.formats.stored import Format, StoredTensor
from reference_loader.source.files import STATE_DICT


@dataclass(frozen=True, slots=True)
class MemoryTensor(StoredTensor):
    """A tensor of the state dict, with itself."""

    tensor: torch.Tensor = field(kw_only=True)


class StateDict:
    """The tensors as they are: nothing is copied unless a cast is needed."""

    def view(self, stored: StoredTensor) -> torch.Tensor:
        """The tensor that was given."""
        assert isinstance(stored, MemoryTensor)
        # No parameter can be made of a tensor that inference mode made.
        return stored.tensor.clone() if stored.tensor.is_inference() else stored.tensor


def read_state_dict(state_dict: Mapping[str, torch.Tensor]) -> dict[str, StoredTensor]:
    """What the state dict holds, in its order.

    Raises:
        BadOptions: it is not a mapping of names to dense tensors with values.
    """
    if not isinstance(state_dict, Mapping):
        raise BadOptions(
            f"`state_dict` is a {type(state_dict).__name__}, not a mapping of names to tensors.",
            "Pass the state dict itself.",
        )
    stored: dict[str, StoredTensor] = {}
    for key, tensor in state_dict.items():
        if reason := _why_not(key, tensor):
            raise BadOptions(f"`state_dict` holds {key!r}: {reason}.", _hint(key, tensor))
        held = key, STATE_DICT, tensor.dtype, tuple(tensor.shape), 0, tensor.nbytes
        viewable = tensor.is_cpu and tensor.is_contiguous() and not tensor.is_inference()
        stored[key] = MemoryTensor(*held, Format.STATE_DICT, viewable, tensor=tensor)
    return stored


def _why_not(key: object, value: object) -> str:
    """Why an entry of the state dict cannot be loaded; "" if it can."""
    if not isinstance(key, str):
        return f"the name is a {type(key).__name__}, not text"
    if not isinstance(value, torch.Tensor):
        return f"a {type(value).__name__}, not a tensor of torch"
    if value.layout != torch.strided or value.is_nested or value.is_quantized:
        return "a sparse, nested or quantised tensor, which has no dense values to load"
    return "a tensor on the meta device, which has no values" if value.is_meta else ""


def _hint(key: object, value: object) -> str:
    """What to pass instead of an entry that cannot be loaded."""
    if isinstance(value, Mapping):
        return f"If the weights are below that name, pass `state_dict[{key!r}]`."
    return (
        "Pass tensors of torch: `torch.from_numpy` makes one of an array; leave other values out."
    )
