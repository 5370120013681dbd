"""INF: loading info."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.judge.checks.evidence import Evidence, check, unless_equal
from conformance.results.records import Divergence


@check("INF-1")
def containers(seen: Evidence) -> Iterator[Divergence]:
    """The loading info has four fields: three sets and an empty list."""
    wanted = dict.fromkeys(("missing_keys", "unexpected_keys", "mismatched_keys"), "set")
    wanted["error_msgs"] = "list"
    info = seen.observation.info or {}
    found = {field: facts["container"] for field, facts in info.items()}
    yield from unless_equal("config", "loading info", wanted, found)
    yield from unless_equal("config", "error_msgs", [], seen.listed("error_msgs"))
