"""What is left once the weights are in: ties, eval mode, generation config."""

from __future__ import annotations

import torch
from torch import nn

from reference_loader.architecture import Architecture
from reference_loader.options import Options
from reference_loader.plan import LoadPlan
from reference_loader.skeleton import put


def finish(
    plan: LoadPlan, model: nn.Module, architecture: Architecture, options: Options
) -> tuple[str, ...]:
    """Tie, switch to evaluation, read the generation config.

    Returns:
        The names that the model would tie and the checkpoint stores with other values; they keep
        their own (TIE-4).
    """
    untied = tie(plan, model)
    for name in untied:
        architecture.forget_tie(model, name)
    model.eval()
    architecture.read_generation_config(model, plan.source, options)
    return untied


def tie(plan: LoadPlan, model: nn.Module) -> tuple[str, ...]:
    """Make each group of names one parameter; leave out, and return, rivals that differ."""
    untied = []
    for first, *others in plan.ties:
        provider = model.get_parameter(first)
        for name in others:
            if name in plan.rivals and not torch.equal(provider, model.get_parameter(name)):
                untied.append(name)
            else:
                put(model, name, provider)
    return tuple(untied)
