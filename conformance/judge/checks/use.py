"""USE: what can be done with the model."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from conformance.judge.checks.evidence import Evidence, check, pairs_equal
from conformance.judge.checks.out import EPSILONS
from conformance.results.records import Divergence


@check("USE-2")
def true_gradients(seen: Evidence) -> Iterator[Divergence]:
    """The gradients are those of our own Llama in float64, to the rounding of the model's dtype."""
    dtypes = {facts["dtype"] for facts in seen.of_kind("parameter").values()}
    epsilons = [torch.finfo(getattr(torch, dtype.split(".")[1])).eps for dtype in dtypes]
    bound = EPSILONS * max(torch.finfo(torch.float32).eps, *epsilons)
    for name, facts in seen.observation.gradients.items():
        if "error" not in facts:
            yield Divergence("gradient", name, "a gradient", facts["fingerprint"])
            continue
        if not facts["error"] <= bound:
            told = f"{facts['error']:.1e} off"
            yield Divergence("gradient", name, f"within {bound:.1e} of float64", told)


untouched = pairs_equal("USE-3")
one_step = pairs_equal("USE-4")
saved_and_loaded = pairs_equal("USE-5")
saved_over_its_source = pairs_equal("USE-6")
resized = pairs_equal("USE-7")
copied = pairs_equal("USE-8")
pickled = pairs_equal("USE-9")
two_loads = pairs_equal("USE-10")
in_order = pairs_equal("USE-11")
config_objects = pairs_equal("USE-12")
no_hooks = pairs_equal("USE-13")
own_attributes = pairs_equal("USE-14")
checkpointing_off = pairs_equal("USE-15")
modes = pairs_equal("USE-16")
cast_afterwards = pairs_equal("USE-17")
saved_from_disk = pairs_equal("USE-18")
