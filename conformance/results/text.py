"""Text from checkpoints and loaders, made safe to show."""

from __future__ import annotations

import re
from unicodedata import category

# What is invisible although no control or format character: fillers, joiners, variation selectors.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
# Spaces that are wider or narrower than a space.
_SPACES = "Zs"


def plain(value: object, most: int | None = None) -> str:
    """The value as one line of text without control characters, at most `most` characters of it."""
    text = _escaped(str(value))
    return text if most is None or len(text) <= most else text[: most - 1] + "…"


def plain_lines(text: str) -> str:
    """A text, every line of it made plain."""
    return "\n".join(map(plain, text.split("\n")))


def _escaped(text: str) -> str:
    """A text with what is not safe to show as escapes: by category, as control or separator."""
    if text.isprintable() and not _INVISIBLE.search(text):
        return text
    return "".join(each if _is_shown(each) else _code_point(each) for each in text)


def _is_shown(character: str) -> bool:
    """Whether a character is safe to show."""
    shown = character.isprintable() or category(character) == _SPACES
    return shown and not _INVISIBLE.match(character)


def _code_point(character: str) -> str:
    """A character as an escape of its code point."""
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
