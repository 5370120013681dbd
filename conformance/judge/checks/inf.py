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


@check("INF-7")
def warned(seen: Evidence) -> Iterator[Divergence]:
    """There is a log record of a level at which loggers show it."""
    if not _loud(seen):
        yield Divergence("log", "log", "a warning", "none")


@check("INF-8")
def silent(seen: Evidence) -> Iterator[Divergence]:
    """There is no such record, and no warning."""
    yield from unless_equal("log", "log", [], _loud(seen))


def _loud(seen: Evidence) -> list[str]:
    """What is shown to a user who set no level."""
    shown = ("WARNING ", "ERROR ", "CRITICAL ", "warning ")
    return [each for each in seen.observation.messages["kinds"] if each.startswith(shown)]
