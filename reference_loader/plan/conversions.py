"""Which stored tensors together make which tensor of the model (CNV): decided before any is read.

One expert's way: its key is claimed in `names.resolve`, it becomes a source of a `Conversion` in
`conversions`, and its bytes are copied to their place in `fill.operations.convert`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import count
from typing import Any

import torch

from reference_loader.errors import BadConversion, LoadError, UnsupportedConversion
from reference_loader.formats.stored import StoredTensor
from reference_loader.model.architecture import Converter
from reference_loader.model.skeleton import Skeleton
from reference_loader.plan import devices
from reference_loader.plan.decisions import Action, Conversion, Mismatch, Part
from reference_loader.plan.dtypes import tensor_dtype
from reference_loader.plan.names import Claimed
from reference_loader.plan.tracing import NotTraceable, Traced, traced
from reference_loader.plan.workers import waits
from reference_loader.speed import fast


def conversions(
    claimed: Mapping[str, Claimed],
    stored: Mapping[str, StoredTensor],
    skeleton: Skeleton,
    kept: Collection[str],
    device_map: devices.DeviceMap | None = None,
) -> Iterator[Conversion | Mismatch]:
    """The tensors that are made of several stored ones, or of one by an operation.

    Args:
        claimed: checkpoint key to the converter that claims it, and the first tensor it makes.
        stored: checkpoint key to tensor.
        skeleton, kept, device_map: see `decide.match`.

    Raises:
        BadConversion: the numbers of a list have a hole (CNV-2), or its tensors do not fit.
    """
    groups: dict[tuple[str, int], list[str]] = {}
    for key in sorted(claimed, key=natural):
        groups.setdefault((claimed[key].target, id(claimed[key].converter)), []).append(key)
    for (first, _), keys in groups.items():
        converter = claimed[keys[0]].converter
        parts: dict[str, list[str]] = {}
        for key in keys:
            parts.setdefault(claimed[key].pattern, []).append(key)
        for part in parts.values():
            refuse_holes(first, part)
        sources = tuple(stored[key] for part in parts.values() for key in part)
        made = _made(converter, first, parts, stored)
        for target, result in made.items():
            slot = skeleton.slots.get(target)
            if slot is None:
                continue
            if tuple(result.shape) != slot.shape:
                yield Mismatch(target, tuple(result.shape), slot.shape, sources[0].file)
                continue
            where = devices.place if slot.kind == "parameter" else devices.memory_device
            pieces = result.pieces if isinstance(result, Traced) else None
            device = where(target, device_map)
            yield Conversion(
                *(target, slot.shape, tensor_dtype(target, slot.dtype, kept), device),
                Part(first, {pattern: tuple(part) for pattern, part in parts.items()}, converter),
                *(sources, pieces),
                waits=fast() and pieces is not None and _large(sources, device),
            )


def _large(sources: Iterable[StoredTensor], device: Any) -> bool:
    """Whether worker threads are faster than the calling thread; what goes to disk is written."""
    size = sum(each.nbytes for each in sources)
    return device != devices.DISK and waits(Action.CAST, size, device)


def natural(key: str) -> list[tuple[int, int, str]]:
    """The order of checkpoint keys by the numbers in them: expert 10 comes after expert 9."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in re.findall(r"\d+|\D+", key)
    ]


def refuse_holes(target: str, keys: list[str]) -> None:
    """Raise where the keys of a list are not numbered from 0 on.

    Raises:
        BadConversion: a number is not there; nothing is shifted into its place.
    """
    if len(keys) < 2:
        return
    columns = zip(*(key.split(".") for key in keys), strict=False)
    numbers = next((column for column in columns if len(set(column)) > 1), ())
    found = [int(number) for number in numbers if number.isdecimal()]
    if len(found) == len(keys) and found != list(range(len(keys))):
        lacking = next(n for n in range(len(keys)) if n not in found)
        raise BadConversion(
            f"{target!r} is made of {len(keys)} stored tensors such as {keys[0]!r}, but number "
            f"{lacking} is not stored.",
            "Download or convert the checkpoint again.",
        )


def _made(
    converter: Converter,
    first: str,
    parts: Mapping[str, list[str]],
    stored: Mapping[str, StoredTensor],
) -> Mapping[str, torch.Tensor]:
    """What the converter makes: pieces of the stored tensors, or tensors without values.

    Each source is cast before an operation sees it, so all have one dtype by then.
    """
    numbers = count()
    inputs: dict[str, list[torch.Tensor]] = {
        pattern: [traced(next(numbers), stored[key].shape, torch.float32) for key in keys]
        for pattern, keys in parts.items()
    }
    try:
        return converter.convert(first, inputs)
    except NotTraceable:
        inputs = {
            pattern: [torch.empty(stored[key].shape, device="meta") for key in keys]
            for pattern, keys in parts.items()
        }
    except Exception as cause:
        reason = _at_fault(converter, parts, stored) or str(cause)
        raise _failed(BadConversion, converter, first, parts, reason) from cause
    try:
        return converter.convert(first, inputs)
    except Exception as cause:
        raise _failed(UnsupportedConversion, converter, first, parts, str(cause)) from cause


def _at_fault(
    converter: Converter, parts: Mapping[str, list[str]], stored: Mapping[str, StoredTensor]
) -> str:
    """Which list of tensors is not stored, or which tensor is unlike its list; "" if neither."""
    for pattern in converter.patterns:
        if pattern not in parts:
            return f"no stored key fits {pattern!r}"
    for keys in parts.values():
        shapes = Counter(stored[key].shape for key in keys)
        (usual, _), *others = shapes.most_common()
        if others:
            odd = next(key for key in keys if stored[key].shape != usual)
            return f"{odd!r} has the shape {list(stored[odd].shape)}, not {list(usual)}"
    return ""


def _failed(
    error: type[LoadError],
    converter: Converter,
    first: str,
    parts: Mapping[str, list[str]],
    reason: str,
) -> LoadError:
    names = ", ".join(repr(keys[0]) for keys in parts.values())
    number = sum(map(len, parts.values()))
    return error(
        f"{first!r} cannot be made of {number} stored tensors ({names}, ...) by "
        f"{converter.operations}: {reason}.",
        "Check the shapes and the number of these tensors.",
    )
