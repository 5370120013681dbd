"""Mutants that are right for every tensor of a small Llama: shapes, sizes and counts beyond it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from conformance.mutants.planting import Load, coming_out

# Elements in a chunk of a loader that casts in chunks.
CHUNK = 4096


def _shapes(load: Load) -> Any:
    """The module of every shape; a module without tensors where the model has none."""
    return getattr(load.model, "shapes", nn.Module())


def _lose_tail(load: Load) -> None:
    """Only whole chunks of a large tensor are filled."""
    for parameter in load.model.parameters():
        if parameter.numel() > 2**19:
            flat = parameter.data.reshape(-1)
            flat[parameter.numel() // CHUNK * CHUNK :] = 0


def _in_order_of_name(load: Load) -> None:
    """Layers are filled in the order of their names: layer 10 comes after layer 1."""
    states = [layer.state_dict() for layer in load.base.layers]
    states = [{key: tensor.clone() for key, tensor in state.items()} for state in states]
    order = sorted(range(len(states)), key=str)
    for layer, number in zip(load.base.layers, order, strict=True):
        layer.load_state_dict(states[number])


@coming_out("MAP-1", "shape/every")
def tail_lost(load: Load) -> None:
    """The elements of a large tensor that fill no whole chunk are zero."""
    _lose_tail(load)


@coming_out("DTY-7", "shape/every-as-bfloat16")
def tail_lost_in_a_cast(load: Load) -> None:
    """The elements of a large tensor that fill no whole chunk are zero after a cast."""
    if load.model.dtype == torch.bfloat16:
        _lose_tail(load)


@coming_out("MAP-1", "shape/twelve-layers")
def layers_in_order_of_name(load: Load) -> None:
    """Layers are filled in the order of their names: layer 10 comes after layer 1."""
    _in_order_of_name(load)


@coming_out("DTY-7", "shape/twelve-layers-as-bfloat16")
def layers_cast_in_order_of_name(load: Load) -> None:
    """Layers that are cast are filled in the order of their names."""
    if load.model.dtype == torch.bfloat16:
        _in_order_of_name(load)


@coming_out("MAP-1", "shape/float64")
def float64_through_float32(load: Load) -> None:
    """What is stored as float64 has passed through float32."""
    for parameter in load.model.parameters():
        if parameter.dtype == torch.float64:
            parameter.data = parameter.data.float().double()


@coming_out("DTY-7", "shape/float64-as-float32")
def float64_through_bfloat16(load: Load) -> None:
    """What is stored as float64 passes through bfloat16 on its way to float32."""
    stored = load.stored
    for name, parameter in load.model.named_parameters():
        if name in stored and stored[name].dtype == torch.float64:
            parameter.data = stored[name].bfloat16().to(parameter.dtype)


@coming_out("MAP-1", "shape/every")
def kernel_turned_round(load: Load) -> None:
    """The kernel of a convolution is turned round, as in other libraries."""
    if hasattr(_shapes(load), "conv1d"):
        _shapes(load).conv1d.weight.copy_(_shapes(load).conv1d.weight.flip(-1).clone())


@coming_out("MAP-1", "shape/every-sharded")
def kernel_of_another_layout(load: Load) -> None:
    """The kernel of a two-dimensional convolution has its channels last in memory order."""
    if hasattr(_shapes(load), "conv2d"):
        weight = _shapes(load).conv2d.weight
        weight.copy_(weight.permute(0, 2, 3, 1).reshape(weight.shape).clone())


@coming_out("MAP-1", "shape/every")
def groups_interleaved(load: Load) -> None:
    """The channels of a grouped convolution are interleaved."""
    if hasattr(_shapes(load), "grouped"):
        weight = _shapes(load).grouped.weight
        weight.copy_(weight.reshape(4, 2, 2, 3).transpose(0, 1).reshape(8, 2, 3).clone())


@coming_out("DTY-10", "shape/every")
def counter_through_a_float(load: Load) -> None:
    """Integer buffers have passed through float64."""
    for buffer in load.model.buffers():
        if buffer.dtype == torch.int64:
            buffer.copy_(buffer.double().long())


@coming_out("DTY-10", "shape/every-sharded")
def counter_at_zero(load: Load) -> None:
    """The counter of a batch norm is that of a new one."""
    if hasattr(_shapes(load), "counted"):
        _shapes(load).counted.num_batches_tracked.zero_()


@coming_out("DTY-10", "shape/every-as-bfloat16")
def variance_of_a_new_norm(load: Load) -> None:
    """The running variance of a batch norm is one after a cast."""
    if hasattr(_shapes(load), "counted") and load.model.dtype == torch.bfloat16:
        _shapes(load).counted.running_var.fill_(1)


@coming_out("DTY-10", "shape/every-as-float16")
def integers_cast_too(load: Load) -> None:
    """Counters are cast with the weights."""
    if hasattr(_shapes(load), "steps") and load.model.dtype == torch.float16:
        _shapes(load).steps = _shapes(load).steps.to(torch.float16)


@coming_out("DTY-10", "shape/every")
def flags_as_bytes(load: Load) -> None:
    """A buffer of booleans becomes one of bytes."""
    if hasattr(_shapes(load), "flags"):
        _shapes(load).flags = _shapes(load).flags.to(torch.uint8)


@coming_out("DTY-10", "shape/every")
def bytes_with_a_sign(load: Load) -> None:
    """A buffer of bytes has passed through bytes with a sign, and stops at 127."""
    if hasattr(_shapes(load), "levels"):
        _shapes(load).levels.clamp_(max=127)


@coming_out("FMT-11", "shape/dimensions")
def number_of_one_dimension(load: Load) -> None:
    """A parameter without a dimension gets one."""
    if hasattr(_shapes(load), "gain"):
        _shapes(load).gain = nn.Parameter(_shapes(load).gain.reshape(1))


@coming_out("FMT-11", "shape/dimensions-as-bfloat16")
def nothing_of_one_dimension(load: Load) -> None:
    """A parameter without an element loses its shape."""
    if hasattr(_shapes(load), "nothing"):
        _shapes(load).nothing = nn.Parameter(_shapes(load).nothing.reshape(0))


@coming_out("MAP-1", "shape/every")
def five_dimensions_turned(load: Load) -> None:
    """A parameter of five dimensions is filled from the last dimension to the first."""
    if hasattr(_shapes(load), "deep"):
        deep = _shapes(load).deep
        deep.copy_(deep.permute(4, 3, 2, 1, 0).reshape(deep.shape).clone())


@coming_out("MAP-1", "shape/every")
def magnitude_computed_anew(load: Load) -> None:
    """The magnitude of a weight norm is computed from the direction, not read."""
    if hasattr(_shapes(load), "scaled"):
        originals = _shapes(load).scaled.parametrizations.weight
        originals.original0.copy_(originals.original1.norm(dim=1, keepdim=True))


@coming_out("MAP-8", "shape/old-weight-norm")
def old_magnitude_lost(load: Load) -> None:
    """The magnitude of a weight norm with its old names stays at one."""
    if hasattr(getattr(load.model, "scaled", None), "weight_g"):
        load.model.scaled.weight_g.fill_(1)
