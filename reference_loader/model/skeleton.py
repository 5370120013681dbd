"""The model before a weight is read: parameters without memory, buffers that are real.

Stock builds the whole model on the meta device and fills the buffers in afterwards, so a buffer
that only its constructor knows is lost. Here the constructor runs on the CPU, and only what it
registers as a parameter goes to meta at that moment.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy
from torch.utils.weak import TensorWeakRef

from reference_loader.errors import LoadError
from reference_loader.model.draws import DrawsApart
from reference_loader.speed import initialisers_skipped, restore_initialisers

# transformers initialises no module that carries this mark, and from release 5 no tensor either.
NEEDS_NO_VALUES = "_is_hf_initialized"

# The name, and the kind, of what `set_extra_state` takes: any tensor, as it is stored (MAP-9).
EXTRA_STATE = "_extra_state"

CPU = torch.device("cpu")

# The default dtype belongs to the process, so one skeleton is built at a time.
_building = [threading.RLock()]


def _in_child() -> None:
    """A child that was forked while another thread was building has not that thread, which alone
    could give the lock back: it gets a lock of its own."""
    _building[0] = threading.RLock()


os.register_at_fork(after_in_child=_in_child)


@dataclass(frozen=True)
class Slot:
    """A place in the model for one tensor.

    `kind` is "parameter", "buffer", or `EXTRA_STATE`, where neither dtype nor shape says anything.
    `order` counts the parameters in the order of their registration; -1 for a buffer.
    """

    name: str
    kind: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    order: int = -1


@dataclass(frozen=True)
class Skeleton:
    """An empty model and the slots of its state dict.

    Attributes:
        model: parameters on meta, buffers real.
        slots: name to slot, for every parameter and every persistent buffer.
        ties: groups of names that are one parameter, each in the model's own order (TIE-1).
        modules: path to module, by every path that leads to it.
    """

    model: nn.Module
    slots: Mapping[str, Slot]
    ties: tuple[tuple[str, ...], ...]
    modules: Mapping[str, nn.Module]


def build(
    construct: Callable[[], nn.Module], dtype: torch.dtype, real: Container[int] = ()
) -> Skeleton:
    """Construct the model without the memory of its weights.

    A constructor that needs their values runs once more, with memory for all of them.
    Neither torch's generator nor the default dtype are moved.

    Args:
        construct: calls the model class.
        dtype: the default dtype while it runs.
        real: orders of parameters that keep the memory and the values their constructor gives.
    """
    order: dict[int, int] = {}
    try:
        model = _construct(construct, dtype, order, real)
    except Exception as cause:
        if not _asked_for_values(cause):
            raise
        order = {}
        model = _construct(construct, dtype, order, range(sys.maxsize))
    modules = dict(model.named_modules(remove_duplicate=False))
    if not real:
        _release(modules, order)
    for module in modules.values():
        restore_initialisers(module)
        # As after an initialisation: one that the user asks for later spares what was loaded.
        module.__dict__[NEEDS_NO_VALUES] = True
    return Skeleton(model, _slots(model, order), _ties(modules), modules)


def _asked_for_values(cause: BaseException) -> bool:
    """Whether torch refused to a constructor what needs the values of a weight.

    A word that torch changes one day makes such a constructor an error, not a wrong model.
    """
    told = str(cause.__cause__ if isinstance(cause, LoadError) else cause)
    return any(word in told for word in ("meta tensor", "Meta", "incompatible tensor type"))


def _construct(
    construct: Callable[[], nn.Module],
    dtype: torch.dtype,
    order: dict[int, int],
    real: Container[int],
) -> nn.Module:
    """One run of the constructor; `order` is filled with what it registers."""
    skipping = nullcontext() if real else initialisers_skipped()
    with _building[0], on_cpu(), DrawsApart(), _parameters_on_meta(order, real), skipping:
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            return construct()
        finally:
            torch.set_default_dtype(before)


def _release(modules: Mapping[str, nn.Module], order: dict[int, int]) -> None:
    """Take the memory of every parameter that still has some."""
    released: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}
    for module in modules.values():
        for leaf, parameter in module._parameters.items():
            if parameter is None or parameter.is_meta or is_lazy(parameter):
                continue
            if id(parameter) not in released:
                released[id(parameter)] = parameter, on_meta(parameter)
            empty = module._parameters[leaf] = released[id(parameter)][1]
            if id(parameter) in order:
                order[id(empty)] = order[id(parameter)]


def on_cpu() -> AbstractContextManager[Any]:
    """New tensors are on the CPU; where they are anyway, torch needs no watching."""
    return nullcontext() if torch.get_default_device() == CPU else CPU


@contextmanager
def _parameters_on_meta(order: dict[int, int], real: Container[int]) -> Iterator[None]:
    """Have what this thread registers as a parameter go to meta at that moment."""
    registered: list[nn.Parameter] = []  # kept alive, so that no id is given twice
    # A parameter registered under two names is one; held weakly, since it holds the memory.
    stand_in: dict[int, tuple[TensorWeakRef, nn.Parameter]] = {}
    thread = threading.get_ident()

    def to_meta(_: nn.Module, __: str, parameter: nn.Parameter) -> nn.Parameter | None:
        if threading.get_ident() != thread or id(parameter) in order or is_lazy(parameter):
            return None
        if parameter.is_meta:  # a copy that the constructor made: others may hold it already
            order[id(parameter)] = len(registered)
            registered.append(parameter)
            return None
        original, found = stand_in.get(id(parameter), (None, parameter))
        if original is None or original() is not parameter:
            position = len(registered)
            found = parameter if position in real else on_meta(parameter)
            registered.append(found)
            order[id(found)] = position
            if found is not parameter:
                stand_in[id(parameter)] = TensorWeakRef(parameter), found
        return found

    hook = register_module_parameter_registration_hook(to_meta)  # type: ignore[arg-type]
    try:
        yield
    finally:
        hook.remove()


def on_meta(parameter: nn.Parameter) -> nn.Parameter:
    """The same parameter without memory: class, dtype, shape, gradient flag and attributes stay."""
    empty = like(parameter, torch.empty_like(parameter.data, device="meta"))
    setattr(empty, NEEDS_NO_VALUES, True)
    return empty


def like(parameter: nn.Parameter, data: torch.Tensor) -> nn.Parameter:
    """`data` as a parameter of the same class, gradient flag and attributes."""
    copy = type(parameter)(data, requires_grad=parameter.requires_grad)
    copy.__dict__.update(parameter.__dict__)
    for hooks in ("_backward_hooks", "_post_accumulate_grad_hooks"):
        if getattr(parameter, hooks, None):
            setattr(copy, hooks, getattr(parameter, hooks))
    return copy


def put(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Give the slot `name` its tensor; a parameter stays a parameter, a buffer a buffer."""
    path, _, leaf = name.rpartition(".")
    put_into(attrgetter(path)(model) if path else model, leaf, tensor)


def put_into(owner: nn.Module, leaf: str, tensor: torch.Tensor) -> None:
    """The same for a slot whose module is known already."""
    if leaf == EXTRA_STATE:
        owner.set_extra_state(tensor)
    elif leaf in owner._buffers:
        owner._buffers[leaf] = tensor
    elif type(tensor) is not torch.Tensor and isinstance(tensor, nn.Parameter):
        owner._parameters[leaf] = tensor
    else:
        parameter = owner._parameters[leaf]
        assert parameter is not None
        owner._parameters[leaf] = like(parameter, tensor)


def _slots(model: nn.Module, order: Mapping[int, int]) -> dict[str, Slot]:
    slots = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name.rpartition(".")[2] == EXTRA_STATE:
            slots[name] = Slot(name, EXTRA_STATE, torch.float32, ())
            continue
        kind = "parameter" if isinstance(tensor, nn.Parameter) else "buffer"
        position = order.get(id(tensor), -1)
        slots[name] = Slot(name, kind, tensor.dtype, tuple(tensor.shape), position)
    return slots


def _ties(modules: Mapping[str, nn.Module]) -> tuple[tuple[str, ...], ...]:
    groups: dict[int, list[str]] = {}
    for path, module in modules.items():
        for leaf, parameter in module._parameters.items():
            if parameter is not None:
                groups.setdefault(id(parameter), []).append(f"{path}.{leaf}" if path else leaf)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)
