"""An operation on tensors without values leaves what lies where, or says that it cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from reference_loader.plan.tracing import NotTraceable, Traced, traced

Operation = Callable[[Sequence[Any]], Any]


def filled(result: Traced, sources: Sequence[torch.Tensor]) -> torch.Tensor:
    """The result, put together from its pieces; every element is filled once."""
    found, count = torch.empty(result.shape), torch.zeros(result.shape, dtype=torch.int64)
    for piece in result.pieces:
        part = sources[piece.source].as_strided(piece.size, piece.strides, piece.offset)
        found[piece.box].copy_(part)
        count[piece.box] += 1
    assert (count == 1).all()
    return found


MOVING: list[Operation] = [
    lambda t: torch.stack(t, dim=0),
    lambda t: torch.stack(t, dim=-1),
    lambda t: torch.cat(t, dim=1),
    lambda t: torch.cat([torch.stack(t[:2]), torch.stack(t[1:])], dim=1),
    lambda t: torch.stack([x.transpose(0, 1) for x in t], dim=1).contiguous(),
    lambda t: torch.cat(t, dim=0).permute(1, 0).clone(),
    lambda t: torch.cat(t, dim=0).split([5, 7], dim=0)[1],
    lambda t: torch.cat(t, dim=1).chunk(4, dim=1)[2],
    lambda t: torch.cat(t, dim=0)[3:9, 1:-1],
    lambda t: torch.stack(t)[1].t(),
    lambda t: torch.stack(t).unbind(1)[2],
    lambda t: t[0].view(2, 2, 6).transpose(0, 1),
    lambda t: t[0].reshape(8, 3).unsqueeze(1).squeeze(1),
    lambda t: torch.cat([t[2], t[0]], dim=0).transpose(-1, -2)[..., 2:6],
]


@pytest.mark.parametrize("operation", MOVING, ids=range(len(MOVING)))
def test_pieces_are_what_the_operation_gives(operation: Operation) -> None:
    sources = [torch.arange(24.0).reshape(4, 6) + 100 * n for n in range(3)]

    result = operation([traced(n, (4, 6), torch.float32) for n in range(3)])

    assert isinstance(result, Traced)
    assert torch.equal(filled(result, sources), operation(sources))


COMPUTING: list[Operation] = [
    lambda t: t[0] + t[1],
    lambda t: t[0].to(torch.float16),
    lambda t: t[0][::2],
    lambda t: torch.cat(t, dim=0).reshape(8, 9),
    lambda t: t[0].transpose(0, 1).reshape(24),
]


@pytest.mark.parametrize("operation", COMPUTING, ids=range(len(COMPUTING)))
def test_what_computes_or_cannot_be_said_in_pieces_is_refused(operation: Operation) -> None:
    with pytest.raises(NotTraceable):
        operation([traced(n, (4, 6), torch.float32) for n in range(3)])


def test_shapes_that_do_not_fit_are_an_error_as_in_torch() -> None:
    with pytest.raises(ValueError, match="shapes"):
        torch.cat([traced(0, (4, 6), torch.float32), traced(1, (4, 5), torch.float32)], dim=0)
