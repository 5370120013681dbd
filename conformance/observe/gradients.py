"""The gradients of a loss, as facts, and how far they are from an independent backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from conformance.observe.outputs import example_inputs
from conformance.results.fingerprint import fingerprint
from reference_loader.llama import Llama

LOSS = "(loss)"


def observe_gradients(model: Any, exact: bool) -> dict[str, dict[str, Any]]:
    """Facts of the gradient of every parameter; the model has its gradients afterwards.

    The loss is the mean cross-entropy of the next token of the prompt; of a model without logits it
    is a weighted sum of its first output.

    Args:
        model: what was loaded.
        exact: whether to take the gradients of our own Llama in float64, too.

    Returns:
        Parameter to `fingerprint` ("none" without a gradient) and, with `exact`, `error`: the
        largest difference to the exact gradient, relative to the largest exact element. `(loss)`
        has the loss in place of a gradient. An error of torch is the one entry `(error)`.
    """
    inputs = example_inputs(model)
    if inputs is None:
        return {}
    try:
        loss = _loss(model(**inputs, use_cache=False), inputs["input_ids"])
        loss.backward()  # type: ignore[no-untyped-call]
        truth = _exact_gradients(model, inputs["input_ids"]) if exact else {}
    except Exception as error:
        return {"(error)": {"fingerprint": f"{type(error).__name__}: {error}"}}
    found: dict[str, torch.Tensor | None] = {n: p.grad for n, p in model.named_parameters()}
    found[LOSS] = loss.detach()
    return {name: _facts(name, gradient, truth) for name, gradient in found.items()}


def _loss(output: Any, tokens: torch.Tensor) -> torch.Tensor:
    """A scalar on which every parameter that is used has an effect."""
    logits = getattr(output, "logits", None)
    if logits is not None and logits.ndim == 3 and logits.shape[1] == tokens.shape[1]:
        wanted = tokens[:, 1:].reshape(-1)
        return functional.cross_entropy(logits[:, :-1].flatten(0, 1).double(), wanted)
    first = output[0].double()
    weights = torch.linspace(-1, 1, first.numel(), dtype=torch.float64).reshape(first.shape)
    total: torch.Tensor = (first * weights).sum()
    return total


def _facts(
    name: str, gradient: torch.Tensor | None, truth: dict[str, torch.Tensor]
) -> dict[str, Any]:
    if gradient is None:
        return {"fingerprint": "none"}
    facts: dict[str, Any] = {"fingerprint": fingerprint(gradient)}
    if name in truth:
        exact = truth[name]
        scale = exact.abs().max().item() or 1.0
        facts["error"] = (gradient.double() - exact).abs().max().item() / scale
    return facts


def _exact_gradients(model: Any, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """The gradients of our own Llama in float64, of the weights that the load left.

    Names that are one parameter in the model have one gradient: the sum of those of each place.
    """
    untied = {"tie_word_embeddings": False}
    twin = Llama.from_config(model.config.to_dict() | untied).double()
    twin.load_state_dict(model.state_dict())
    loss = _loss(twin(tokens), tokens)
    loss.backward()  # type: ignore[no-untyped-call]
    places = dict(model.named_parameters(remove_duplicate=False))
    own = dict(twin.named_parameters())
    found = {LOSS: loss.detach()}
    for name, parameter in model.named_parameters():
        same = [other for other, tensor in places.items() if tensor is parameter]
        total = torch.zeros_like(own[name])
        for other in same:
            held = own[other].grad
            total = total if held is None else total + held
        found[name] = total
    return found
