"""PLC: placement on devices."""

from __future__ import annotations

import re
from collections.abc import Iterator

from conformance.judge.checks.evidence import Evidence, check
from conformance.results.records import Divergence

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


@check("PLC-6")
def whole_layers(seen: Evidence) -> Iterator[Divergence]:
    """Each layer is on one device."""
    for name in seen.observation.device_map or {}:
        if re.match(r"model\.layers\.\d+\.", name):
            yield Divergence(
                "device-map", name, "in the place of its layer", "in a place of its own"
            )


@check("PLC-8")
def within_budget(seen: Evidence) -> Iterator[Divergence]:
    """The parameters on a device take no more bytes than its `max_memory`."""
    for place, budget in seen.case.options["max_memory"].items():
        device = f"cuda:{place}" if isinstance(place, int) else str(place)
        held = sum(
            facts["nbytes"]
            for name, facts in seen.parameters().items()
            if seen.tensors[name]["device"] == device
        )
        if held > _bytes(budget):
            yield Divergence("device", device, f"at most {budget} bytes", f"{held} bytes")


def _bytes(size: int | str) -> int:
    """A budget as a number; as text it is in a power of ten."""
    return size if isinstance(size, int) else int(size[:-2]) * UNITS[size[-2:]]
