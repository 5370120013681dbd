"""What is left once the weights are in: ties, eval mode, generation config, hooks."""

from __future__ import annotations

import torch
from torch import nn

from reference_loader.errors import UnsupportedOption
from reference_loader.fill.offload import Offloaded, dispatch, place_fresh
from reference_loader.formats.reader import opened
from reference_loader.model.architecture import Architecture
from reference_loader.model.skeleton import like, put
from reference_loader.options import Options
from reference_loader.plan.decisions import Action
from reference_loader.plan.plan import LoadPlan


def finish(
    plan: LoadPlan,
    model: nn.Module,
    architecture: Architecture,
    offloaded: Offloaded,
    options: Options,
) -> tuple[str, ...]:
    """Tie, switch to evaluation, note the renames, read the generation config, attach the hooks.

    Returns:
        The names that the model would tie and the checkpoint stores with other values; they keep
        their own (TIE-4).
    """
    refuse_conflicts(plan, model)
    place_fresh(plan, model, offloaded)
    untied = tie(plan, model)
    for name in untied:
        architecture.forget_tie(model, name)
    model.eval()
    renamed = [each.stored.key for each in plan.placements if each.stored.key != each.target]
    mapping = {**(options.key_mapping or {}), **architecture.key_mapping(model)}
    architecture.remember_renames(model, mapping, plan.inventory.stored, renamed)
    architecture.read_generation_config(model, plan.source, options)
    dispatch(plan, model, offloaded, options, untied)
    return untied


def refuse_conflicts(plan: LoadPlan, model: nn.Module) -> None:
    """Raise where stored tensors with different values went into one memory.

    Raises:
        UnsupportedOption: naming the tensor that has lost its values.
    """
    names = plan.sharing.names
    for placement in [each for each in plan.placements if each.target in names]:
        name, stored = placement.target, placement.stored
        wanted = opened(stored.file, stored.format, plan.weights_only).view(stored)
        found = model.state_dict(keep_vars=True)[name].detach().cpu()
        if not torch.equal(found, wanted.to(placement.dtype)):
            raise UnsupportedOption(
                f"{stored.file} stores {stored.key!r} and another tensor with different values; in "
                f"{type(model).__name__} they share their memory.",
                "Save one of the two, or have the constructor give each its own memory.",
            )


def tie(plan: LoadPlan, model: nn.Module) -> tuple[str, ...]:
    """Make each group of names one parameter; leave out, and return, rivals that differ."""
    untied = []
    for first, *others in plan.ties.groups:
        if first in plan.sharing.names:  # one object or one memory since it was constructed
            continue
        provider = model.get_parameter(first)
        for name in others:
            if name in plan.ties.rivals and not _equal(plan, model, first, name):
                own = model.get_parameter(name)
                # Offloaded to disk, both are still the one empty parameter that they were.
                put(model, name, like(own, own.data.clone()) if own is provider else own)
                untied.append(name)
            else:
                put(model, name, provider)
    return tuple(untied)


def _equal(plan: LoadPlan, model: nn.Module, *names: str) -> bool:
    """Whether two parameters have the same values; an offloaded one is read from its file."""
    offloaded = (Action.OFFLOAD, Action.WRITE)
    stored = {p.target: p.stored for p in plan.placements if p.action in offloaded}
    values = [
        opened(stored[name].file, stored[name].format, plan.weights_only).view(stored[name])
        if name in stored
        else model.get_parameter(name).cpu()
        for name in names
    ]
    return torch.equal(*values)
