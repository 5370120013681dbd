"""Where each element of a tensor comes from, found by running an operation on tensors without
values.

The library's own operations are run on `Traced` tensors. Those that only move elements (stack,
concatenate, split, transpose) leave a list of `Piece`s: what of which stored tensor lies where in
the result. So a parameter that is put together from hundreds of tensors is read straight into its
place, and no operation is written here a second time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

aten = torch.ops.aten
CPU = torch.device("cpu")


class NotTraceable(RuntimeError):
    """An operation that computes, or moves elements in a way that pieces cannot say."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A box of the result and the elements that fill it: a strided view of one stored tensor.

    Attributes:
        source: the number of the stored tensor.
        offset: its first element that is used.
        strides: elements of the stored tensor from one element of the box to the next, by
            dimension of the result.
        start, size: where the box lies in the result.
    """

    source: int
    offset: int
    strides: tuple[int, ...]
    start: tuple[int, ...]
    size: tuple[int, ...]

    @property
    def box(self) -> tuple[slice, ...]:
        """The index of the box in the result."""
        return tuple(slice(a, a + n) for a, n in zip(self.start, self.size, strict=True))


class Traced(torch.Tensor):
    """A tensor of a shape and a dtype that knows its pieces, and has no values.

    Raises:
        NotTraceable: from any operation on it that is not in `MOVES`.
    """

    pieces: tuple[Piece, ...]

    @staticmethod
    def __new__(cls, shape: Sequence[int], dtype: torch.dtype, pieces: Iterable[Piece]) -> Traced:
        made = torch.Tensor._make_wrapper_subclass(cls, tuple(shape), dtype=dtype, device=CPU)
        made.pieces = tuple(pieces)
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        move = MOVES.get(func)
        if move is None:
            raise NotTraceable(f"{func} computes values")
        return move(*args, **(kwargs or {}))

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Traced({list(self.shape)}, {len(self.pieces)} pieces)"


def traced(source: int, shape: Sequence[int], dtype: torch.dtype) -> Traced:
    """A stored tensor, whole: one piece.

    Example:
        >>> two = [traced(n, (2, 3), torch.float32) for n in range(2)]
        >>> torch.stack(two).pieces[1]
        Piece(source=1, offset=0, strides=(0, 3, 1), start=(1, 0, 0), size=(1, 2, 3))
    """
    strides = tuple(math.prod(shape[n + 1 :]) for n in range(len(shape)))
    whole = Piece(source, 0, strides, (0,) * len(shape), tuple(shape))
    return Traced(shape, dtype, [whole])


def _same(tensor: Traced, *_: Any, **__: Any) -> Traced:
    return tensor


def _permute(tensor: Traced, dims: Sequence[int]) -> Traced:
    order = [dim % tensor.dim() for dim in dims]

    def permuted(values: Sequence[int]) -> tuple[int, ...]:
        return tuple(values[dim] for dim in order)

    pieces = [
        replace(p, strides=permuted(p.strides), start=permuted(p.start), size=permuted(p.size))
        for p in tensor.pieces
    ]
    return Traced(permuted(tensor.shape), tensor.dtype, pieces)


def _transpose(tensor: Traced, first: int, second: int) -> Traced:
    dims = list(range(tensor.dim()))
    dims[first], dims[second] = dims[second], dims[first]
    return _permute(tensor, dims)


def _t(tensor: Traced) -> Traced:
    return _transpose(tensor, 0, 1) if tensor.dim() == 2 else tensor


def _unsqueeze(tensor: Traced, dim: int) -> Traced:
    at = dim % (tensor.dim() + 1)

    def with_one(values: Sequence[int], new: int) -> tuple[int, ...]:
        return (*values[:at], new, *values[at:])

    pieces = [
        Piece(p.source, p.offset, with_one(p.strides, 0), with_one(p.start, 0), with_one(p.size, 1))
        for p in tensor.pieces
    ]
    return Traced(with_one(tensor.shape, 1), tensor.dtype, pieces)


def _squeeze(tensor: Traced, dim: int) -> Traced:
    at = dim % tensor.dim()
    return tensor if tensor.shape[at] != 1 else _select(tensor, at, 0)


def _cat(tensors: Sequence[Traced], dim: int = 0) -> Traced:
    at = dim % tensors[0].dim()
    _refuse_unlike(tensors, {(*t.shape[:at], *t.shape[at + 1 :]) for t in tensors})
    pieces, begin = [], 0
    for tensor in tensors:
        for p in tensor.pieces:
            start = (*p.start[:at], p.start[at] + begin, *p.start[at + 1 :])
            pieces.append(Piece(p.source, p.offset, p.strides, start, p.size))
        begin += tensor.shape[at]
    first = tensors[0].shape
    return Traced((*first[:at], begin, *first[at + 1 :]), tensors[0].dtype, pieces)


def _stack(tensors: Sequence[Traced], dim: int = 0) -> Traced:
    # As if each had one dimension more and all were concatenated there; a list of experts is long.
    shape = tuple(tensors[0].shape)
    _refuse_unlike(tensors, {t.shape for t in tensors})
    at = dim % (len(shape) + 1)
    pieces = [
        Piece(
            *(p.source, p.offset),
            strides=(*p.strides[:at], 0, *p.strides[at:]),
            start=(*p.start[:at], place, *p.start[at:]),
            size=(*p.size[:at], 1, *p.size[at:]),
        )
        for place, tensor in enumerate(tensors)
        for p in tensor.pieces
    ]
    return Traced((*shape[:at], len(tensors), *shape[at:]), tensors[0].dtype, pieces)


def _refuse_unlike(tensors: Sequence[Traced], shapes: Collection[tuple[int, ...]]) -> None:
    """Raise as the library does where shapes, as far as they must agree, or dtypes differ."""
    if len(shapes) > 1 or len({t.dtype for t in tensors}) > 1:
        raise ValueError(f"shapes or dtypes differ: {sorted({tuple(t.shape) for t in tensors})}")


def _slice(
    tensor: Traced, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Traced:
    at = dim % tensor.dim()
    low, high, _ = slice(start, end).indices(tensor.shape[at])
    if step != 1:
        raise NotTraceable("a slice with steps")
    pieces = []
    for p in tensor.pieces:
        first, last = max(low, p.start[at]), min(high, p.start[at] + p.size[at])
        if first < last:
            pieces.append(
                replace(
                    p,
                    offset=p.offset + (first - p.start[at]) * p.strides[at],
                    start=(*p.start[:at], first - low, *p.start[at + 1 :]),
                    size=(*p.size[:at], last - first, *p.size[at + 1 :]),
                )
            )
    shape = (*tensor.shape[:at], max(0, high - low), *tensor.shape[at + 1 :])
    return Traced(shape, tensor.dtype, pieces)


def _select(tensor: Traced, dim: int, index: int) -> Traced:
    at = dim % tensor.dim()
    place = index % tensor.shape[at]
    row = _slice(tensor, at, place, place + 1)

    def without(values: Sequence[int]) -> tuple[int, ...]:
        return (*values[:at], *values[at + 1 :])

    pieces = [
        Piece(p.source, p.offset, without(p.strides), without(p.start), without(p.size))
        for p in row.pieces
    ]
    return Traced(without(row.shape), tensor.dtype, pieces)


def _split(tensor: Traced, size: int | Sequence[int], dim: int = 0) -> list[Traced]:
    length = tensor.shape[dim]
    sizes = size if not isinstance(size, int) else [size] * -(-length // size)
    found, begin = [], 0
    for each in sizes:
        found.append(_slice(tensor, dim, begin, min(begin + each, length)))
        begin += each
    return found


def _unbind(tensor: Traced, dim: int = 0) -> list[Traced]:
    return [_select(tensor, dim, index) for index in range(tensor.shape[dim])]


def _view(tensor: Traced, shape: Sequence[int]) -> Traced:
    """Another shape of a tensor that is one piece, where its strides allow it."""
    if len(tensor.pieces) != 1 or tensor.pieces[0].size != tuple(tensor.shape):
        raise NotTraceable("another shape of several pieces")
    (whole,) = tensor.pieces
    empty = torch.empty_strided(whole.size, whole.strides, device="meta")
    try:
        viewed = empty.view(tuple(shape))
    except RuntimeError as cause:
        raise NotTraceable(str(cause)) from cause
    size = tuple(viewed.shape)
    piece = Piece(whole.source, whole.offset, viewed.stride(), (0,) * len(size), size)
    return Traced(size, tensor.dtype, [piece])


MOVES: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((aten.clone.default, aten.detach.default, aten.alias.default), _same),
    aten.permute.default: _permute,
    aten.transpose.int: _transpose,
    aten.t.default: _t,
    aten.unsqueeze.default: _unsqueeze,
    aten.squeeze.dim: _squeeze,
    aten.cat.default: _cat,
    aten.stack.default: _stack,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.split.Tensor: _split,
    aten.split_with_sizes.default: _split,
    aten.unbind.int: _unbind,
    aten.view.default: _view,
    aten._unsafe_view.default: _view,
}
