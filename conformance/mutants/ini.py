"""Mutants of stage INI: model construction and initialisation."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import torch
from torch import nn
from transformers import PreTrainedModel

from conformance.mutants.planting import Load, around, coming_out
from conformance.observe.loaders import reference


@coming_out("INI-1", "dty/buffers-f16")
def wrong_buffer(load: Load) -> None:
    """The rotary frequencies have passed through bfloat16."""
    rotary = load.base.rotary_emb
    rotary.inv_freq = rotary.inv_freq.to(torch.bfloat16).to(torch.float32)


@coming_out("INI-1", "dty/buffers-f16")
def buffer_lost(load: Load) -> None:
    """There are no rotary frequencies."""
    load.base.rotary_emb.inv_freq = None


@coming_out("INI-2", "ini/constructor-buffer", of=reference)
def buffer_of_the_constructor_unwritten(load: Load) -> None:
    """A buffer that only the constructor knows is in memory that nobody wrote to."""
    for name, buffer in list(load.model.named_buffers(recurse=False)):
        setattr(load.model, name, torch.empty_like(buffer))


@coming_out("INI-3", "ini/frozen-embedding")
def frozen(load: Load) -> None:
    """No parameter requires a gradient."""
    load.model.requires_grad_(False)


@coming_out("INI-4", "ini/no-memory-left-out")
def buffer_unwritten(load: Load) -> None:
    """The rotary frequencies are in memory that nobody wrote to."""
    rotary = load.base.rotary_emb
    rotary.inv_freq = torch.empty_like(rotary.inv_freq)


@coming_out("INI-4", "ini/no-memory-left-out")
def norm_left_on_meta(load: Load) -> None:
    """The final norm has no memory."""
    load.base.norm.weight = nn.Parameter(load.base.norm.weight.to("meta"))


@coming_out("INI-5", "ini/marked-weight", of=reference)
def attributes_of_parameters_lost(load: Load) -> None:
    """Each parameter is a new one with the values of the one that the constructor made."""
    for module in load.model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(parameter.data))


@coming_out("INI-5", "ini/hook")
def hooks_of_the_constructor_lost(load: Load) -> None:
    """No module has a forward hook."""
    for module in load.model.modules():
        module._forward_hooks.clear()


@coming_out("INI-6", "ini/parameter-class", of=reference)
def parameter_class_lost(load: Load) -> None:
    """The final norm's parameter is of the plain class."""
    load.base.norm.weight = nn.Parameter(load.base.norm.weight.data)


@coming_out("INI-8", "ini/persistent-buffer-stored")
def stored_buffer_not_read(load: Load) -> None:
    """A persistent buffer keeps the value of its constructor, zero."""
    for name, buffer in load.model.named_buffers():
        if name in load.model.state_dict():
            buffer.zero_()


@coming_out("INI-9", "ini/transposed-head")
def strides_of_the_constructor_kept(load: Load) -> None:
    """The head lies in memory column by column."""
    load.head.weight.data = load.head.weight.data.t().contiguous().t()


@around("INI-10", "ini/no-memory-first")
def memory_taken_first(load: Load) -> Iterator[None]:
    """The constructor makes its parameters on the CPU, and the weights are read into others."""
    contexts = PreTrainedModel.get_init_context.__func__

    def without_meta(cls: type, *given: object) -> list[object]:
        return [each for each in contexts(cls, *given) if not isinstance(each, torch.device)]

    with patch.object(PreTrainedModel, "get_init_context", classmethod(without_meta)):
        yield
