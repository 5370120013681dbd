"""MEM: memory."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.judge.checks.evidence import Evidence, check, pairs_equal
from conformance.results.records import Divergence

# Of the checkpoint's bytes, the most that may be resident at once in a load that casts.
MOST = 0.5


@check("MEM-1")
def views(seen: Evidence) -> Iterator[Divergence]:
    """Each parameter lies in the mapping of a file of the checkpoint."""
    for name, facts in seen.parameters().items():
        if not facts["mapped"]:
            yield Divergence("state", name, "a view of the file", "memory of its own")


@check("MEM-2")
def nothing_mapped(seen: Evidence) -> Iterator[Divergence]:
    """No file of the checkpoint is mapped after the load."""
    if seen.observation.mappings != 0:
        yield Divergence("state", "files of the source", "none mapped", "still mapped")


@check("MEM-3", of_failed_loads=True)
def half_resident(seen: Evidence) -> Iterator[Divergence]:
    """At most half of the checkpoint's bytes are resident in mappings at once."""
    peak = seen.observation.resident_bytes
    assert peak is not None
    if peak > MOST * sum(path.stat().st_size for path in seen.folder.iterdir()):
        yield Divergence("state", "pages of the source", "half at most", "more")


gone = pairs_equal("MEM-4")
files_unwritten = pairs_equal("MEM-5")
files_replaced = pairs_equal("MEM-6")
files_truncated = pairs_equal("MEM-7")
