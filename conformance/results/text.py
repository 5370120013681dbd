"""Text from checkpoints and loaders, made safe to show."""

from __future__ import annotations

import re

# Everything that could move a terminal's cursor, forge a line, turn the direction of what follows,
# or is no character of XML 1.0.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def plain(value: object, most: int | None = None) -> str:
    """`value` as one line of text without control characters, at most `most` characters of it."""
    text = _CONTROL.sub(_escaped, str(value))
    return text if most is None or len(text) <= most else text[: most - 1] + "…"


def plain_lines(text: str) -> str:
    """Every line of `text` made plain."""
    return "\n".join(map(plain, text.split("\n")))


def _escaped(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape", "surrogatepass").decode("ascii")
