"""MIS: missing and mismatched tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from conformance.cases.case import SEED
from conformance.judge.checks.evidence import Evidence, check, unless_equal
from conformance.results.fingerprint import fingerprint
from conformance.results.records import Divergence

# Layers that the library initialises with one call.
ONE_CALL = ("lm_head.weight", "score.weight", "proj.weight")


@check("MIS-1")
def fresh_statistics(seen: Evidence) -> Iterator[Divergence]:
    """Initialised matrices have the mean, deviation and kurtosis of N(0, initializer_range); norms
    are ones and biases zeros, or what the user's class sets."""
    bias = getattr(seen.case.model_class(), "given_bias", 0.0)
    for name in sorted(seen.fresh()):
        tensor, facts = seen.tensors[name], seen.observation.details[name]
        if tensor["device"] == "meta":
            continue  # INI-4 objects to it
        if len(tensor["shape"]) < 2:
            wanted = 1.0 if "norm" in name else bias
            if not facts["least"] == facts["most"] == wanted:
                yield Divergence("values", name, f"all {wanted}", "other values")
            continue
        wanted = seen.observation.config["initializer_range"] * (2 if "adapter" in name else 1)
        if not _is_normal(facts, wanted, math.prod(tensor["shape"])):
            found = "mean {mean:.2g}, std {std:.2g}, kurtosis {kurtosis:.2g}".format(**facts)
            yield Divergence("values", name, f"N(0, {wanted})", found)


def _is_normal(facts: Mapping[str, Any], wanted: float, count: int) -> bool:
    """Within five standard errors; the kurtosis of a normal distribution is 3."""
    slack = 5 / math.sqrt(count)
    centred = abs(facts["mean"]) <= slack * wanted
    spread = abs(facts["std"] - wanted) <= slack * wanted
    return bool(centred and spread and abs(facts["kurtosis"] - 3) <= math.sqrt(24) * slack)


@check("MIS-2")
def seeded_numbers(seen: Evidence) -> Iterator[Divergence]:
    """One fresh head or projection has the seed's first normal numbers, in every release.

    An embedding also has a row for padding, and a user's layer may be initialised in any way.
    """
    fresh = {seen.tensors[name]["storage"] for name in seen.fresh()}
    matrices = [name for name in fresh if len(seen.tensors[name]["shape"]) == 2]
    if len(matrices) != 1 or not matrices[0].endswith(ONE_CALL):
        return
    facts = seen.tensors[matrices[0]]
    if facts["device"] != "meta":
        generator = torch.Generator().manual_seed(SEED)
        drawn = torch.empty(facts["shape"], dtype=getattr(torch, facts["dtype"].split(".")[1]))
        drawn.normal_(0.0, seen.observation.config["initializer_range"], generator=generator)
        yield from unless_equal("values", matrices[0], fingerprint(drawn), facts["fingerprint"])


@check("MIS-3")
def generator_at_rest(seen: Evidence) -> Iterator[Divergence]:
    """A load of a complete checkpoint draws no random number."""
    before, after = (seen.observation.state[when]["rng"] for when in ("before", "after"))
    yield from unless_equal("state", "rng", before, after)
