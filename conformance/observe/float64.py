"""How close logits are to an independent forward in float64, so that "moved" is not "wrong".

The independent forward is our own plain Llama with the weights that the load left, so what is
measured is the arithmetic of the release; which weights it left shows in the tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from conformance.observe.outputs import example_inputs, forward
from reference_loader.llama import Llama

# In float64 and in memory beside the model itself: 1.6 GB.
MOST_PARAMETERS = 200_000_000

SAMPLE = 512


def accuracy(model: Any) -> dict[str, Any] | None:
    """Facts of the logits, to compare them across releases; None without logits.

    `unit` is one unit in the last place of the largest logit; `error` how far the logits are from
    the float64 ones at most, in units, None where there is no independent forward; `sample` up to
    512 of the logits, evenly spread.
    """
    inputs = None if model is None else example_inputs(model)
    if inputs is None:
        return None
    try:
        logits = forward(model, inputs)["logits"].detach()
    except Exception:  # `observe_outputs` notes it
        return None
    if logits.is_meta or not logits.any():  # nothing was computed, or nothing to measure by
        return None
    exact = logits.double().cpu()
    unit = torch.finfo(logits.dtype).eps * exact.abs().max().item()
    flat = exact.reshape(-1)
    truth = _truth(model, inputs["input_ids"].cpu())
    error = None if truth is None else (exact - truth).abs().max().item() / unit
    return {"unit": unit, "error": error, "sample": flat[:: -(-len(flat) // SAMPLE)].tolist()}


def _truth(model: Any, input_ids: torch.Tensor) -> torch.Tensor | None:
    """The logits of our own Llama in float64; None for another class or too large a model."""
    if type(model).__name__ != "LlamaForCausalLM" or _size(model) > MOST_PARAMETERS:
        return None
    if any(tensor.is_meta for tensor in model.parameters()):
        return None
    untied = {"tie_word_embeddings": False}  # both are in the state dict, equal or not
    try:
        exact = Llama.from_config(model.config.to_dict() | untied).double()
    except ValueError:  # the config has a field that our own Llama does not support
        return None
    exact.load_state_dict(model.state_dict())
    with torch.no_grad():
        logits: torch.Tensor = exact(input_ids).logits
    return logits


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
