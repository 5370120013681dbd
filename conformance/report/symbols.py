"""A sign beside each word, so that colour is never the only carrier."""

from __future__ import annotations

from conformance.judge.changes import (
    ADDED,
    CHANGED,
    FIXED,
    INCOMPARABLE,
    REGRESSED,
    REMOVED,
    UNCHANGED,
)
from conformance.results.records import AGREE, DIVERGE, ERROR, KNOWN, SKIP

SYMBOLS = {
    AGREE: "✓",
    KNOWN: "≈",
    DIVERGE: "✗",
    ERROR: "!",
    SKIP: "–",
    REGRESSED: "▼",
    CHANGED: "≠",
    FIXED: "▲",
    INCOMPARABLE: "?",
    ADDED: "⊕",
    REMOVED: "⊖",
    UNCHANGED: "=",
}

# What an exit code says of a run, and the colour that goes with it.
ENDINGS = {
    0: ("as expected", "good"),
    1: ("something is not as expected", "bad"),
    2: ("a verdict could not be reached", "bad"),
    3: ("a known deviation is stale", "warn"),
}
