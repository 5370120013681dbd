"""DTY: dtypes."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.judge.checks.evidence import Evidence, check, unless_equal
from conformance.results.records import Divergence


@check("DTY-8")
def float32_buffers(seen: Evidence) -> Iterator[Divergence]:
    """The rotary frequencies are in float32, as a Llama makes them."""
    for name, facts in seen.of_kind("buffer").items():
        if name.endswith("inv_freq"):
            yield from unless_equal("dtype", name, "torch.float32", facts["dtype"])
