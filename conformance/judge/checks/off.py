"""OFF: disk offload."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.judge.checks.evidence import Evidence, check, unless_equal
from conformance.observe import baseline
from conformance.results.records import Divergence


@check(*baseline.IN_MEMORY)
def outputs_as_in_memory(seen: Evidence) -> Iterator[Divergence]:
    """The outputs are those of the same load, under the same seed, without a device map."""
    for name, facts in seen.plain_load.outputs.items():
        found = seen.observation.outputs.get(name, "absent")
        yield from unless_equal("output", name, facts, found)
