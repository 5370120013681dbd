"""FMT: weight files."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.judge.checks.evidence import Evidence, check, unless_equal
from conformance.results.records import Divergence


@check("FMT-13")
def memory_of_its_own(seen: Evidence) -> Iterator[Divergence]:
    """No parameter keeps more memory than its elements take."""
    for name, facts in seen.parameters().items():
        taken, kept = facts["nbytes"], facts["kept"]
        yield from unless_equal("tie", name, f"{taken} bytes kept", f"{kept} bytes kept")
