"""What a model computes: logits, every hidden state, greedy tokens, as facts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from conformance.cases.case import SEED
from conformance.results.fingerprint import fingerprint
from conformance.world.process import poisoned_memory

PROMPT_LENGTH = 8
NEW_TOKENS = 6


def example_inputs(model: nn.Module) -> dict[str, torch.Tensor] | None:
    """A fixed prompt, int64 (1, 8), for a model that takes tokens; None for another.

    It is on the model's GPU, if it has one.
    """
    config = getattr(model, "config", None)
    if getattr(model, "main_input_name", "") != "input_ids" or config is None:
        return None
    vocabulary = getattr(config.get_text_config(), "vocab_size", None)
    if not isinstance(vocabulary, int):
        return None
    prompt = torch.tensor([prompt_tokens(vocabulary)], device=_home(model))
    if getattr(config, "is_encoder_decoder", False):
        return {"input_ids": prompt, "decoder_input_ids": prompt[:, : PROMPT_LENGTH // 2]}
    return {"input_ids": prompt}


def prompt_tokens(vocabulary: int) -> list[int]:
    """The tokens of the prompt for a vocabulary of this size."""
    return [(7 * i + 3) % vocabulary for i in range(PROMPT_LENGTH)]


def _home(model: nn.Module) -> torch.device:
    """The first GPU that holds a parameter, else the CPU."""
    places = (parameter.device for parameter in model.parameters())
    return next((place for place in places if place.type == "cuda"), torch.device("cpu"))


def forward(model: nn.Module, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every tensor the forward returns, hidden states included, by a dotted name."""
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        torch.manual_seed(SEED)  # some models draw, whatever the load has drawn
        output = model(**inputs, output_hidden_states=True, return_dict=True)
    return dict(_named(dict(output.items())))


def observe_outputs(model: Any, greedy: bool, new_tokens: int = NEW_TOKENS) -> dict[str, Any]:
    """Facts of every output; `greedy` adds the tokens of a greedy generation.

    A forward that fails has one output, `exception`: loaders may differ in it.
    """
    inputs = example_inputs(model)
    if inputs is None:
        return {"skipped": "no example inputs for this kind of model"}
    try:
        with poisoned_memory():  # a head on meta leaves the logits unwritten
            facts: dict[str, Any] = {
                name: {"dtype": str(t.dtype), "shape": list(t.shape), "fingerprint": fingerprint(t)}
                for name, t in forward(model, inputs).items()
            }
            if greedy and hasattr(model, "can_generate") and model.can_generate():
                facts["tokens"] = _greedy(model, inputs, new_tokens)
    except Exception as exception:
        return {"exception": f"{type(exception).__name__}: {exception}"}
    return facts


def observe_logits(model: Any, most: int | None = None) -> list[float] | None:
    """The logits of the prompt, in order, or of a model without a head its first output.

    Args:
        model: what computes them.
        most: how many are noted, at even distances; all if None.

    Returns:
        None where the forward fails.
    """
    inputs = example_inputs(model)
    if inputs is None:
        return None
    try:
        with poisoned_memory():
            found = forward(model, inputs)
            logits = found.get("logits", next(iter(found.values())))
    except Exception:  # `observe_outputs` notes it
        return None
    if logits.is_meta:
        return None
    flat = logits.double().reshape(-1)
    return flat[:: 1 if most is None else -(-len(flat) // most)].tolist()


def _greedy(model: Any, inputs: dict[str, torch.Tensor], count: int) -> list[int]:
    prompt = inputs["input_ids"]
    with torch.no_grad():
        tokens = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=count,
        )
    return [int(token) for token in tokens[0]]


def _named(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _named(inner, str(key))
    elif isinstance(value, tuple):
        for position, inner in enumerate(value):
            yield from _named(inner, f"{name}.{position}")
