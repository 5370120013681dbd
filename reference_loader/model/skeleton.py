"""The model before a weight is read: parameters without memory, buffers that are real.

Stock builds the whole model on the meta device and fills the buffers in afterwards, so a buffer
that only its constructor knows is lost. Here the constructor runs on the CPU, and only what it
registers as a parameter goes to meta at that moment.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy
from torch.utils.weak import TensorWeakRef

from reference_loader.errors import BadConfig, UnsupportedOption
from reference_loader.model.sharing import (
    NOTHING_SHARED,
    Place,
    Sharing,
    memory,
    needs_memory,
    places,
    shared,
)
from reference_loader.model.values import NO_BOUNDS, Bounds, ValuesAsked
from reference_loader.speed import initialisers_skipped, restore_initialisers

# transformers initialises no module that carries this mark, and from release 5 no tensor either.
NEEDS_NO_VALUES = "_is_hf_initialized"

# The name, and the kind, of what `set_extra_state` takes: any tensor, as it is stored (MAP-9).
EXTRA_STATE = "_extra_state"

CPU = torch.device("cpu")

EVERY = range(sys.maxsize)

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
        model: parameters on meta but those of `sharing`, buffers real.
        slots: name to slot, for every parameter and every persistent buffer.
        ties: groups of names that are one parameter, each in the model's own order (TIE-1).
        modules: path to module, by every path that leads to it.
        sharing: the slots whose tensors have other users in the model, and keep their memory.
    """

    model: nn.Module
    slots: Mapping[str, Slot]
    ties: tuple[tuple[str, ...], ...]
    modules: Mapping[str, nn.Module]
    sharing: Sharing = NOTHING_SHARED


class Registered:
    """The parameters that a constructor has registered, and what stands for each on meta."""

    def __init__(self, bounds: Bounds) -> None:
        self.values = ValuesAsked(bounds)
        self._left = bounds
        #: In the order of registration; kept alive, so that no id is given twice.
        self.order: dict[int, int] = {}
        self.kept: list[nn.Parameter] = []
        # Held weakly, since they hold the memory.
        self._originals: dict[int, tuple[TensorWeakRef, nn.Parameter]] = {}
        self._memory: dict[int, tuple[int, StorageWeakRef]] = {}

    def add(self, parameter: nn.Parameter, stand_in: nn.Parameter | None = None) -> nn.Parameter:
        """Note the next parameter; return what is registered in its place."""
        found = parameter if stand_in is None else stand_in
        number, nbytes = self._left
        self._left = Bounds(number - 1, nbytes - (0 if found.is_meta else found.nbytes))
        if min(self._left) < 0:
            raise BadConfig(
                "The model has far more parameters than the checkpoint holds.",
                "Check the sizes and the numbers of layers in the config.",
            )
        self.order[id(found)] = len(self.kept)
        self.kept.append(found)
        self._originals[id(parameter)] = TensorWeakRef(parameter), found
        if stand_in is not None:
            # As long as there is a weak reference, no other memory has the same identity.
            held = StorageWeakRef(parameter.untyped_storage())  # type: ignore[no-untyped-call]
            self._memory[memory(stand_in)] = memory(parameter), held
        return found

    def find(self, parameter: nn.Parameter) -> nn.Parameter | None:
        """What has been registered in place of this very parameter, if it was."""
        original, found = self._originals.get(id(parameter), (None, None))
        return found if original is not None and original() is parameter else None

    def memory_of(self, tensor: torch.Tensor) -> int:
        """What identifies the memory of a tensor, or of what it stands for."""
        own = memory(tensor)
        return self._memory[own][0] if own in self._memory else own


def build(
    construct: Callable[[], nn.Module],
    dtype: torch.dtype,
    real: Container[int] = (),
    bounds: Bounds = NO_BOUNDS,
) -> Skeleton:
    """Construct the model without the memory of its weights.

    The constructor runs once more, with memory for all of them, if it needs their values or leaves
    something else that depends on them: a buffer, an attribute, a list that holds them (INI-4).
    Neither torch's generator nor the default dtype are moved.

    Args:
        construct: calls the model class.
        dtype: the default dtype while it runs.
        real: orders of parameters that keep the memory and the values their constructor gives.
        bounds: what the model may have at most.

    Raises:
        BadConfig: it has more.
        UnsupportedOption: a parameter has no shape yet, or cannot be filled without changing what
            is outside of the model.
    """
    first = registered = Registered(bounds)
    try:
        model, modules, found = _construct(construct, dtype, registered, real)
    except Exception:
        if not registered.values.asked:
            raise
    if registered.values.asked or (not real and needs_memory(found, registered.memory_of)):
        registered = Registered(bounds)
        model, modules, found = _construct(construct, dtype, registered, EVERY)
    sharing = NOTHING_SHARED if real else shared(found)
    if sharing.names:
        sharing = sharing.among(model.state_dict())
    if not real and _release(modules, registered, sharing, first):
        found = places(modules)
    for module in modules.values():
        restore_initialisers(module)
        # As after an initialisation: one that the user asks for later spares what was loaded.
        module.__dict__[NEEDS_NO_VALUES] = True
    slots = _slots(model, registered.order)
    return Skeleton(model, slots, _ties(found, sharing), modules, sharing)


def _construct(
    construct: Callable[[], nn.Module],
    dtype: torch.dtype,
    registered: Registered,
    real: Container[int],
) -> tuple[nn.Module, dict[str, nn.Module], list[Place]]:
    """One run of the constructor; `registered` is filled with what it registers."""
    skipping = nullcontext() if real else initialisers_skipped()
    with _building[0], on_cpu(), registered.values, _parameters_on_meta(registered, real), skipping:
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            model = construct()
        finally:
            torch.set_default_dtype(before)
    modules = dict(model.named_modules(remove_duplicate=False))
    found = places(modules)
    for place in found:
        if is_lazy(place.tensor):
            raise UnsupportedOption(
                f"{place.name!r} has no shape before the first forward pass of the model: it is a "
                "lazy parameter of torch, which is not supported by this loader.",
                "Have the constructor of the model class give the shape.",
            )
    return model, modules, found


def _release(
    modules: Mapping[str, nn.Module], registered: Registered, sharing: Sharing, first: Registered
) -> bool:
    """Take the memory of every parameter that still has some and that nothing else uses.

    Args:
        first: of the first run of the constructor; what both registered is not the model's own.

    Returns:
        Whether there was one.
    """
    released: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}
    for path, module in modules.items():
        for leaf, parameter in module._parameters.items():
            if parameter is None or parameter.is_meta:
                continue
            name = f"{path}.{leaf}" if path else leaf
            if name not in sharing.names:
                if id(parameter) not in released:
                    released[id(parameter)] = parameter, on_meta(parameter)
                empty = module._parameters[leaf] = released[id(parameter)][1]
                registered.order[id(empty)] = registered.order.get(id(parameter), -1)
            elif first is not registered and first.find(parameter) is not None:
                raise UnsupportedOption(
                    f"{name!r} is a parameter of several models, and something else of the model "
                    "shares it, which is not supported by this loader.",
                    "Have the constructor of the model class make a parameter of its own.",
                )
            else:
                setattr(parameter, NEEDS_NO_VALUES, True)
    return bool(released)


def on_cpu() -> AbstractContextManager[Any]:
    """New tensors are on the CPU; where they are anyway, torch needs no watching."""
    return nullcontext() if torch.get_default_device() == CPU else CPU


@contextmanager
def _parameters_on_meta(registered: Registered, real: Container[int]) -> Iterator[None]:
    """Have what this thread registers as a parameter go to meta at that moment."""
    thread = threading.get_ident()

    def to_meta(_: nn.Module, __: str, parameter: nn.Parameter) -> nn.Parameter | None:
        if threading.get_ident() != thread or is_lazy(parameter):
            return None
        with torch._C.DisableTorchFunction():  # what is done here is no doing of the constructor
            return stand_in_for(parameter)

    def stand_in_for(parameter: nn.Parameter) -> nn.Parameter | None:
        if id(parameter) in registered.order:
            return None
        found = registered.find(parameter)
        if found is not None:
            return found
        # One on meta is a copy that the constructor made: others may hold it already.
        if parameter.is_meta or len(registered.kept) in real:
            return registered.add(parameter)
        return registered.add(parameter, on_meta(parameter))

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


def put(model: nn.Module, name: str, tensor: torch.Tensor, *, held: bool = False) -> None:
    """Give the slot `name` its tensor; a parameter stays a parameter, a buffer a buffer.

    Args:
        held: the tensor of the slot stays the object that it is, see `Sharing.held`.
    """
    path, _, leaf = name.rpartition(".")
    put_into(attrgetter(path)(model) if path else model, leaf, tensor, held=held)


def put_into(owner: nn.Module, leaf: str, tensor: torch.Tensor, *, held: bool = False) -> None:
    """The same for a slot whose module is known already."""
    if leaf == EXTRA_STATE:
        owner.set_extra_state(tensor)
    elif held:
        getattr(owner, leaf).data = tensor
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


def _ties(found: Iterable[Place], sharing: Sharing) -> tuple[tuple[str, ...], ...]:
    """By identity; tensors that are the same view of shared memory are tied too."""
    groups: dict[Any, list[str]] = {}
    for name, tensor, is_parameter in found:
        if name in sharing.memory:
            shape = tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype
            groups.setdefault((memory(tensor), shape), []).append(name)
        elif is_parameter or name in sharing.held:
            groups.setdefault(id(tensor), []).append(name)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)
