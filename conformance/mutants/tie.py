"""Mutants of stage TIE: tied weights."""

from __future__ import annotations

import torch
from torch import nn

from conformance.mutants.planting import Load, coming_out
from conformance.observe.loaders import reference


@coming_out("TIE-1", "tie/embedding-only")
def lost_tie(load: Load) -> None:
    """The head is a copy of the embedding, equal and apart."""
    if hasattr(load.model, "lm_head"):
        load.model.lm_head.weight = _copy(load.model.lm_head.weight)


@coming_out("TIE-2", "tie/head-only")
def embedding_drawn_over_the_head(load: Load) -> None:
    """An embedding that no file holds is initialised, and so is the stored head tied to it."""
    if load.model.config.tie_word_embeddings:
        load.model.get_input_embeddings().weight.normal_(0.0, 0.02)


@coming_out("TIE-4", "tie/different")
def tied_though_different(load: Load) -> None:
    """The head is the embedding wherever the config ties them."""
    if load.model.config.tie_word_embeddings:
        load.model.lm_head.weight = load.model.get_input_embeddings().weight


@coming_out("TIE-5", "tie/untied-equal")
def tied_because_equal(load: Load) -> None:
    """The head is the embedding wherever they have the same values."""
    embedding, head = load.model.get_input_embeddings(), load.model.lm_head
    if torch.equal(embedding.weight, head.weight):
        head.weight = embedding.weight


@coming_out("TIE-6", "tie/untied-embedding-only")
def missing_head_tied(load: Load) -> None:
    """A head that no file holds is the embedding."""
    if "lm_head.weight" in load.info.get("missing_keys", ()):
        load.model.lm_head.weight = load.model.get_input_embeddings().weight


@coming_out("TIE-8", "tie/t5-first-name")
def third_name_apart(load: Load) -> None:
    """Of more than two tied names the encoder's is a copy."""
    if hasattr(load.model, "encoder"):
        load.model.encoder.embed_tokens.weight = _copy(load.model.encoder.embed_tokens.weight)


@coming_out("TIE-10", "tie/made-by-constructor", of=reference)
def undeclared_tie_lost(load: Load) -> None:
    """A tie that only the constructor makes is lost."""
    if hasattr(load.model, "twin"):
        load.model.twin.weight = _copy(load.model.twin.weight)


def _copy(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.detach().clone())
