"""A state dict in memory, as one more thing to load from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

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
        return stored.tensor


def read_state_dict(state_dict: Mapping[str, torch.Tensor]) -> dict[str, StoredTensor]:
    """What the state dict holds, in its order."""
    stored: dict[str, StoredTensor] = {}
    for key, tensor in state_dict.items():
        if isinstance(tensor, torch.Tensor):
            held = key, STATE_DICT, tensor.dtype, tuple(tensor.shape), 0, tensor.nbytes
            viewable = tensor.is_cpu and tensor.is_contiguous()
            stored[key] = MemoryTensor(*held, Format.STATE_DICT, viewable, tensor=tensor)
    return stored
