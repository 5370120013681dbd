"""Divergences that say the same of many tensors, as one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from conformance.report.explanation import WIDEST, shown
from conformance.results.name_patterns import grouped
from conformance.results.records import Divergence
from conformance.results.text import plain

MOST_NAMES = 40

# Every tensor has one of its own, so it says nothing of whether two divergences are alike.
_FINGERPRINT = re.compile(r"\b[0-9a-f]{16}\b")


@dataclass(frozen=True)
class Alike:
    """Divergences of one clause and kind with the same expected and actual values.

    Attributes:
        clause, kind: theirs.
        names: where they are, drawn together; at most `MOST_NAMES`, the last of which says so.
        expected, actual, detail: of the first of them.
        count: how many there are.
        first: whether the values are only the first one's, for the others differ in fingerprints.
    """

    clause: str
    kind: str
    names: tuple[str, ...]
    expected: str
    actual: str
    detail: str
    count: int
    first: bool


def alike(divergences: Iterable[Divergence]) -> list[Alike]:
    """Divergences that say the same, drawn together, in the order of the first of each."""
    found: dict[tuple[str, ...], list[Divergence]] = {}
    for divergence in divergences:
        found.setdefault(_sameness(divergence), []).append(divergence)
    return [_as_one(each) for each in found.values()]


def _sameness(divergence: Divergence) -> tuple[str, ...]:
    """What two divergences have in common that are shown as one; fingerprints may differ."""
    values = (shown(divergence.expected), shown(divergence.actual))
    masked = tuple(_FINGERPRINT.sub("", value) for value in values)
    detail = divergence.detail if masked == values else ""
    return (divergence.clause, divergence.kind, *masked, detail)


def _as_one(divergences: list[Divergence]) -> Alike:
    """Divergences of many tensors as one."""
    chief = divergences[0]
    expected, actual = shown(chief.expected), shown(chief.actual)
    return Alike(
        plain(chief.clause),
        plain(chief.kind),
        tuple(_shown_names(divergences)),
        plain(expected, WIDEST),
        plain(actual, WIDEST),
        plain(chief.detail, WIDEST),
        len(divergences),
        len(divergences) > 1 and any(map(_FINGERPRINT.search, (expected, actual))),
    )


def _shown_names(divergences: Iterable[Divergence]) -> list[str]:
    """The tensors of divergences shown as one, in patterns of names, not too many."""
    names = [plain(name, WIDEST) for name in grouped(dict.fromkeys(d.where for d in divergences))]
    more = len(names) - MOST_NAMES
    return names if more <= 0 else [*names[: MOST_NAMES - 1], f"and {more + 1} more"]
