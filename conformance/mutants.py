"""Loaders with one planted fault each, and the clause that must catch it.

Each is stock with something done to the model it returns, or to what it says of it. `honest` has
no fault and must pass everything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from conformance.loaders import Loader, stock


@dataclass(frozen=True)
class Mutant:
    """A loader, what is wrong with it, and the clause that must notice."""

    name: str
    clause: str
    fault: str
    loader: Loader


MUTANTS: dict[str, Mutant] = {}


def honest(model_class: type | None, source: str, **options: Any) -> Any:
    """Stock, in a wrapping of its own."""
    return stock(model_class, source, **options)


def _mutant(clause: str) -> Callable[[Callable[[Any], None]], Loader]:
    """Make a loader of a function that spoils a loaded model, or its loading info."""

    def wrap(spoil: Callable[[Any], None]) -> Loader:
        def loader(model_class: type | None, source: str, **options: Any) -> Any:
            result = stock(model_class, source, **options)
            wants_info = spoil.__name__ in INFORMATION
            if wants_info and isinstance(result, tuple):
                spoil(result[1])
            elif not wants_info:
                with torch.no_grad():
                    spoil(result[0] if isinstance(result, tuple) else result)
            return result

        name = spoil.__name__
        MUTANTS[name] = Mutant(name, clause, spoil.__doc__ or "", loader)
        loader.__name__, loader.__doc__ = name, spoil.__doc__
        return loader

    return wrap


# These spoil the loading info; the others spoil the model.
INFORMATION = frozenset({"swallowed_missing_key", "lists_for_sets"})


@_mutant("MAP-1")
def swapped_projections(model: Any) -> None:
    """The first layer's gate and up projections are exchanged."""
    mlp = _base(model).layers[0].mlp
    mlp.gate_proj.weight, mlp.up_proj.weight = mlp.up_proj.weight, mlp.gate_proj.weight


@_mutant("MAP-1")
def one_ulp_off(model: Any) -> None:
    """One element of the final norm is the next number up."""
    weight = _base(model).norm.weight
    changed = weight.data.clone()
    changed[0] = torch.nextafter(changed[0], torch.tensor(torch.inf, dtype=changed.dtype))
    weight.data = changed


@_mutant("INI-1")
def wrong_buffer(model: Any) -> None:
    """The rotary frequencies have passed through bfloat16."""
    rotary = _base(model).rotary_emb
    rotary.inv_freq = rotary.inv_freq.to(torch.bfloat16).to(torch.float32)


@_mutant("TIE-1")
def lost_tie(model: Any) -> None:
    """The head is a copy of the embedding, equal and apart."""
    if hasattr(model, "lm_head"):
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())


@_mutant("OUT-4")
def left_in_train_mode(model: Any) -> None:
    """The model is in training mode."""
    model.train()


@_mutant("INF-2")
def swallowed_missing_key(info: Any) -> None:
    """The report of missing keys is empty."""
    info["missing_keys"] = type(info["missing_keys"])()


@_mutant("INF-1")
def lists_for_sets(info: Any) -> None:
    """The loading info holds lists, as it did before 5.0."""
    info.update({field: list(found) for field, found in info.items()})


@_mutant("DTY-7")
def rounded_twice(model: Any) -> None:
    """Every weight has passed through bfloat16."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16).to(parameter.dtype)


@_mutant("INI-3")
def frozen(model: Any) -> None:
    """No parameter requires a gradient."""
    model.requires_grad_(False)


@_mutant("STA-1")
def default_dtype_left(model: Any) -> None:
    """The process's default dtype is float16 afterwards."""
    torch.set_default_dtype(torch.float16)


@_mutant("MIS-1")
def zeroed_head(model: Any) -> None:
    """The head, if it was missing, is zero."""
    head = getattr(model, "lm_head", None) or getattr(model, "score", None)
    if head is not None:
        head.weight = nn.Parameter(torch.zeros_like(head.weight))


@_mutant("CFG-4")
def forgotten_generation_config(model: Any) -> None:
    """The generation config is the class's default."""
    if getattr(model, "generation_config", None) is not None:
        model.generation_config = type(model.generation_config)()


def _base(model: Any) -> Any:
    return getattr(model, "model", model)


def __getattr__(name: str) -> Loader:
    """`conformance.mutants:NAME` is the loader of the mutant."""
    if name in MUTANTS:
        return MUTANTS[name].loader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
