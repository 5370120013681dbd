"""Which tensors of a model have other users than their slot: of the object, or of its memory.

Usually a load gives a slot a new tensor. It must not where a plain list also holds the parameter,
as in `nn.LSTM`, or where a buffer is a view of it: these would keep the old one.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn

# Without tensors inside; by exact type, since nearly all attributes are of these.
_PLAIN = {str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device, torch.Size}
# No part of a model.
_ELSEWHERE = (type, ModuleType, logging.Logger)
_CONTAINERS = {dict, OrderedDict, list, set, tuple}
# The tables of parameters, buffers and modules; hooks, which may hold tensors, are looked at apart.
_OF_EVERY_MODULE = vars(nn.Module()).keys()


class Place(NamedTuple):
    """Where a model holds a tensor: the name of a parameter or buffer, or "" for anywhere else."""

    name: str
    tensor: torch.Tensor
    is_parameter: bool


@dataclass(frozen=True)
class Sharing:
    """The names of tensors that cannot just be replaced.

    Attributes:
        held: something else holds the very tensor, which has to stay the object that it is.
        memory: another tensor shares its memory, which has to be written in place.
    """

    held: frozenset[str] = frozenset()
    memory: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """Both."""
        return self.held | self.memory

    def among(self, names: Collection[str]) -> Sharing:
        """The same of these names only."""
        return (
            Sharing(self.held.intersection(names), self.memory.intersection(names))
            if self.names
            else self
        )


NOTHING_SHARED = Sharing()


def places(modules: Mapping[str, nn.Module]) -> list[Place]:
    """Every place of a tensor in a model, by every name.

    Args:
        modules: path to module, by every path that leads to it.
    """
    found = []
    for path, module in modules.items():
        for table in (module._parameters, module._buffers):
            for leaf, tensor in table.items():
                if tensor is not None:
                    name = f"{path}.{leaf}" if path else leaf
                    found.append(Place(name, tensor, table is module._parameters))
    return [*found, *(Place("", tensor, False) for tensor in _outside(modules.values()))]


def memory(tensor: torch.Tensor) -> int:
    """What identifies the memory of a tensor, on meta too."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # such as a sparse tensor's
        return id(tensor)


def needs_memory(found: Iterable[Place], memory_of: Callable[[torch.Tensor], int]) -> bool:
    """Whether more than the parameters of a model depends on the memory of its parameters.

    Args:
        found: the places of a model whose parameters are on meta.
        memory_of: see `memory`, for a parameter on meta that of the parameter it stands for.
    """
    found = list(found)
    owner = {memory_of(place.tensor): place.tensor for place in found if place.is_parameter}
    return any(
        owner.get(memory_of(place.tensor), place.tensor) is not place.tensor
        or (not place.is_parameter and (place.tensor.is_meta or memory_of(place.tensor) in owner))
        for place in found
    )


def shared(found: Iterable[Place]) -> Sharing:
    """What has other users; a parameter of several names alone is only tied.

    Args:
        found: the places of a model that has memory.
    """
    by_memory: dict[int, list[Place]] = defaultdict(list)
    for place in found:
        by_memory[memory(place.tensor)].append(place)
    held: set[str] = set()
    in_memory: set[str] = set()
    for group in by_memory.values():
        if len({id(place.tensor) for place in group}) > 1:
            in_memory.update(place.name for place in group)
        elif len(group) > 1 and not all(place.is_parameter for place in group):
            held.update(place.name for place in group)
    return Sharing(frozenset(held), frozenset(in_memory))


def _outside(modules: Iterable[nn.Module]) -> Iterator[torch.Tensor]:
    """Tensors that are neither parameters nor buffers: attributes, and what is inside these."""
    seen = {id(module) for module in modules}
    waiting: list[Any] = []
    for module in {id(module): module for module in modules}.values():
        values = vars(module)
        waiting += _worth_a_look([values[name] for name in values.keys() - _OF_EVERY_MODULE])
        waiting += [hooks for hooks in (module._forward_hooks, module._forward_pre_hooks) if hooks]
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            yield value
        elif id(value) not in seen:
            seen.add(id(value))
            waiting += _worth_a_look(_inside(value))


def _worth_a_look(values: Iterable[Any]) -> list[Any]:
    """Those of the values that may have a tensor inside."""
    found = []
    for value in values:
        kind = type(value)
        if kind in _PLAIN or (kind in _CONTAINERS and not value):
            continue
        if not isinstance(value, _ELSEWHERE):
            found.append(value)
    return found


def _inside(value: Any) -> Iterable[Any]:
    """What a container, a function or another object holds."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return list(value)
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, FunctionType):
        return [*(value.__defaults__ or ()), *_closure(value)]
    is_config = hasattr(value, "to_dict")
    return [] if is_config else list(getattr(value, "__dict__", {}).values())


def _closure(function: FunctionType) -> Iterator[Any]:
    """The values of a function's variables from outside; one may have none yet."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            continue
