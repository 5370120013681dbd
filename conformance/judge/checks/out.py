"""OUT: what the model computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from conformance.judge.checks.evidence import Evidence, check
from conformance.observe.outputs import prompt_tokens
from conformance.results.records import Divergence
from reference_loader import from_pretrained
from reference_loader.llama import Llama

# Machine epsilons of the model's dtype that logits may be off, relative to the largest logit.
EPSILONS = 64


@check("OUT-2")
def true_logits(seen: Evidence) -> Iterator[Divergence]:
    """The logits are those of our own Llama in float64, to the rounding of the model's dtype."""
    yield from far_from(from_pretrained(seen.folder, model_class=Llama).double(), seen)


def far_from(exact: Any, seen: Evidence) -> Iterator[Divergence]:
    """A divergence if the logits are off those of a model in float64."""
    found = seen.observation
    if found.logits is None:
        raise ValueError(found.outputs.get("exception", "the model returns no logits"))
    with torch.no_grad():
        truth = exact(torch.tensor([prompt_tokens(found.config["vocab_size"])])).logits.flatten()
    logits = torch.tensor(found.logits, dtype=torch.float64)
    error = ((logits - truth).abs().max() / truth.abs().max()).item()
    dtype = getattr(torch, found.outputs["logits"]["dtype"].removeprefix("torch."))
    # Stock takes norms and rotary angles in float32 also in a float64 model.
    bound = EPSILONS * max(torch.finfo(each).eps for each in (dtype, torch.float32))
    if not error <= bound:
        yield Divergence("output", "logits", f"within {bound:.1e} of float64", f"{error:.1e} off")


@check("OUT-4")
def evaluation_mode(seen: Evidence) -> Iterator[Divergence]:
    """No module is in training mode."""
    for name, (_, training) in seen.observation.modules.items():
        if training:
            yield Divergence("training", name or "(model)", False, True)
