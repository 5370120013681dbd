"""Mutants of stage CNV: conversions."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch

from conformance.mutants.planting import Load, coming_out, going_in
from conformance.observe.loaders import reference


def _experts(load: Load) -> dict[str, torch.Tensor]:
    """The merged tensors of the first layer's experts; none before release 5."""
    parameters = load.model.named_parameters()
    return {name.rpartition(".")[2]: p for name, p in parameters if ".experts." in name}


@coming_out("CNV-1", "cnv/mixtral")
def experts_in_order_of_name(load: Load) -> None:
    """Expert 10 comes after expert 1."""
    for merged in _experts(load).values():
        order = sorted(range(len(merged)), key=str)
        merged.copy_(merged[order])


@coming_out("CNV-1", "cnv/mixtral")
def gate_and_up_swapped(load: Load) -> None:
    """The up projection comes before the gate."""
    merged = _experts(load)["gate_up_proj"]
    merged.copy_(torch.cat(merged.chunk(2, dim=1)[::-1], dim=1))


@coming_out("CNV-1", "cnv/mixtral")
def gate_and_up_interleaved(load: Load) -> None:
    """Rows of gate and up projection alternate."""
    merged = _experts(load)["gate_up_proj"]
    merged.copy_(torch.stack(merged.chunk(2, dim=1), dim=2).flatten(1, 2))


@coming_out("CNV-1", "cnv/mixtral-sharded")
def experts_transposed(load: Load) -> None:
    """The square matrices are transposed."""
    merged = _experts(load)["gate_up_proj"]
    merged.copy_(merged.transpose(1, 2).clone())


@coming_out("CNV-1", "cnv/mixtral-sharded")
def last_expert_fresh(load: Load) -> None:
    """The last expert keeps its initial values."""
    _experts(load)["down_proj"][-1].normal_(std=0.02)


@coming_out("CNV-1", "cnv/mixtral-cast")
def experts_rounded_twice(load: Load) -> None:
    """An expert is rounded to float16 on the way."""
    merged = _experts(load)["gate_up_proj"]
    merged[0] = merged[0].float().half().to(merged.dtype) * (1 + 2.0**-7)


@coming_out("CNV-1", "cnv/mixtral-state-dict")
def experts_shifted(load: Load) -> None:
    """Each expert has the place of the next one."""
    for merged in _experts(load).values():
        merged.copy_(merged.roll(1, dims=0))


@coming_out("CNV-1", "cnv/mixed-dtypes")
def experts_rounded_to_the_narrowest(load: Load) -> None:
    """All experts are rounded to the narrowest dtype among them."""
    for merged in _experts(load).values():
        merged.copy_(merged.bfloat16())


def _otherwise(load: Load, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Load other tensors than are stored."""
    tensors = load.stored
    change(tensors)
    config = load.model_class.config_class.from_pretrained(load.source)
    load.source, load.options = None, {**load.options, "config": config, "state_dict": tensors}


@going_in("CNV-2", "cnv/hole-in-the-numbers", of=reference)
def numbers_closed_up(load: Load) -> None:
    """Where an expert is not stored, the next one takes its place."""
    _otherwise(load, lambda tensors: _move(tensors, 12, 11))


@going_in("CNV-3", "cnv/one-expert-long", of=reference)
def last_expert_dropped(load: Load) -> None:
    """An expert too many is passed over."""
    _otherwise(load, lambda tensors: _move(tensors, 12, None))


@going_in("CNV-3", "cnv/one-expert-short", of=reference)
def first_expert_repeated(load: Load) -> None:
    """The first expert takes the place of the one that is not stored."""
    _otherwise(load, lambda tensors: _move(tensors, 0, 11))


@going_in("CNV-4", "cnv/half-a-pair", of=reference)
def gate_for_up(load: Load) -> None:
    """The gate takes the place of an up projection that is not stored."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        gate = next(key for key in tensors if re.search(r"experts\.5\.w1\.", key))
        tensors[gate.replace("w1", "w3")] = tensors[gate].clone()

    _otherwise(load, change)


@going_in("CNV-5", "cnv/both-layouts", of=reference)
def sources_win(load: Load) -> None:
    """What is stored under the parameter's own name is passed over."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for key in [key for key in tensors if ".mlp.experts." in key]:
            del tensors[key]

    _otherwise(load, change)


@coming_out("CNV-5", "cnv/layout-of-the-model")
def merged_once_more(load: Load) -> None:
    """What is merged already is taken for a pair to be put together."""
    merged = _experts(load)["gate_up_proj"]
    merged.copy_(torch.cat(merged.chunk(2, dim=1)[::-1], dim=1))


@coming_out("CNV-6", "cnv/key-mapping-first")
def gates_fresh(load: Load) -> None:
    """What `key_mapping` renames comes too late to be merged."""
    _experts(load)["gate_up_proj"].normal_(std=0.02)


@coming_out("CNV-7", "cnv/registered-by-the-user")
def registered_in_another_order(load: Load) -> None:
    """The rows of the up projection come before those of the gate."""
    for name, parameter in load.model.named_parameters():
        if ".mlp.gate_up_proj." in name:
            parameter.copy_(torch.cat(parameter.chunk(2)[::-1]))


@coming_out("CNV-8", "cnv/mixtral")
def one_expert_a_token(load: Load) -> None:
    """The router sends each position to one expert, not to two."""
    for module in load.model.modules():
        if hasattr(module, "top_k"):
            module.top_k = 1


def _move(tensors: dict[str, torch.Tensor], old: int, new: int | None) -> None:
    """Store an expert's matrices under another number too, or not at all."""
    for key in [key for key in tensors if f".experts.{old}." in key]:
        tensor = tensors.pop(key) if old else tensors[key]
        if new is not None:
            tensors[key.replace(f".experts.{old}.", f".experts.{new}.")] = tensor.clone()
