"""Text from checkpoints and loaders, made safe to show."""

from __future__ import annotations

import re

# Everything that could move a terminal's cursor or is no character of XML 1.0.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def plain(value: object, most: int | None = None) -> str:
    """`value` as text without control characters, at most `most` characters of it."""
    text = _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", str(value))
    return text if most is None or len(text) <= most else text[: most - 1] + "…"
