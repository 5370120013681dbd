"""A state dict in memory, as one more thing to load from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from reference_loader.formats.stored import Format, StoredTensor
from reference_loader.source.files import STATE_DICT


@dataclass(frozen=True, slots=True)
class MemoryTensor(StoredTensor):
    """A tensor of the state dict, with itself."""

    tensor: torch.Tensor


class StateDict:
    """The tensors as they are: nothing is copied unless a cast is needed."""

    def view(self, stored: StoredTensor) -> torch.Tensor:
        """The tensor that was given."""
        assert isinstance(stored, MemoryTensor)
        return stored.tensor


def read_state_dict(state_dict: Mapping[str, torch.Tensor]) -> dict[str, StoredTensor]:
    """What the state dict holds, in its order."""
    return {
        key: MemoryTensor(
            key,
            STATE_DICT,
            tensor.dtype,
            tuple(tensor.shape),
            0,
            tensor.nbytes,
            tensor,
            format=Format.STATE_DICT,
            viewable=tensor.is_cpu and tensor.is_contiguous(),
        )
        for key, tensor in state_dict.items()
        if isinstance(tensor, torch.Tensor)
    }
