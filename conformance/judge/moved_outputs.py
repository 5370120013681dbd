"""How far outputs moved from one release to another, and whether that is within rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from conformance.results.records import Divergence, Observation

# Units in the last place of the largest logit: what the order of additions alone may move. It is
# the bound of OUT-2, within which logits are right.
TOLERANCE = 64.0

# The distance from 1 to the next number.
EPSILONS = {
    "torch.float64": 2.0**-52,
    "torch.float32": 2.0**-23,
    "torch.float16": 2.0**-10,
    "torch.bfloat16": 2.0**-7,
}


def without_small_moves(
    facts: Sequence[Divergence], before: Observation, after: Observation
) -> tuple[list[Divergence], str]:
    """Outputs that only moved within the tolerance leave the list; the rest get their numbers."""
    outputs = [fact for fact in facts if fact.kind == "output" and _is_tensor(fact)]
    others = [fact for fact in facts if fact not in outputs]
    if not outputs:
        return others, ""
    units = moved_by(before.accuracy, after.accuracy)
    if units is None:
        return list(facts), ""
    told, further = in_words(units, before.accuracy, after.accuracy)
    if units <= TOLERANCE and not further:
        return others, told
    return [*others, *(replace(fact, detail=told) for fact in outputs)], ""


def only_rounded(expected: Observation, actual: Observation) -> bool:
    """Whether what two loads of one release compute is equal to within the tolerance.

    Which kernel multiplies a matrix depends on where it lies in memory, and so do the last bits.
    """
    wanted, found = expected.logits, actual.logits
    if not wanted or not found or len(wanted) != len(found):
        return False
    if expected.outputs.keys() != actual.outputs.keys() or "exception" in expected.outputs:
        return False
    if expected.outputs.get("tokens") != actual.outputs.get("tokens"):
        return False
    tensors = [
        (facts, actual.outputs[name])
        for name, facts in expected.outputs.items()
        if isinstance(facts, Mapping)
    ]
    if not tensors or any(a[what] != b[what] for a, b in tensors for what in ("dtype", "shape")):
        return False
    dtype = expected.outputs.get("logits", tensors[0][0])["dtype"]
    largest = max((abs(each) for each in wanted if math.isfinite(each)), default=0.0)
    bound = TOLERANCE * EPSILONS.get(dtype, 0.0) * largest
    # A NaN is near to nothing, and an infinity to itself alone.
    return all(a == b or abs(a - b) <= bound for a, b in zip(wanted, found, strict=True))


def _is_tensor(fact: Divergence) -> bool:
    """Whether it is a tensor of one dtype and shape in both, in which numbers can be compared."""
    if not isinstance(fact.expected, Mapping) or not isinstance(fact.actual, Mapping):
        return False
    return all(fact.expected.get(name) == fact.actual.get(name) for name in ("dtype", "shape"))


def moved_by(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> float | None:
    """How far the logits moved at most, in units in the last place; None where that is not known.

    Args:
        before, after: what `accuracy.accuracy` noted.
    """
    if not before or not after or len(before["sample"]) != len(after["sample"]):
        return None
    furthest = max(abs(a - b) for a, b in zip(before["sample"], after["sample"], strict=True))
    return float(furthest / after["unit"]) if after["unit"] else None


def in_words(
    units: float, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> tuple[str, bool]:
    """The move as a text, and whether it leads further from the truth by more than one unit."""
    moved = f"logits moved by {units:.2g} ulp"
    first, second = (accuracy["error"] if accuracy else None for accuracy in (before, after))
    if first is None or second is None:
        return f"{moved}; no independent forward to tell which is right", False
    if second > first + 1:
        return f"{moved}, further from the truth: {first:.2g} ulp, then {second:.2g}", True
    close = "closer to" if second < first - 1 else "still as close to"
    return f"{moved}, {close} the truth: {first:.2g} ulp, then {second:.2g}", False
