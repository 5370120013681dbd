"""What `plain` and the errors of the reference let through to a terminal, a page or a file."""

from __future__ import annotations

import sys
from unicodedata import category

import pytest

from conformance.results.text import plain, plain_lines
from reference_loader.errors import LoadError, shown

EVERY = [chr(code) for code in range(sys.maxunicode + 1)]
# Fillers, joiners and variation selectors are letters, marks and symbols, and invisible.
INVISIBLE = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180f\u2800\u3164\ufe00\ufe0f\uffa0\U000e0100"


@pytest.mark.parametrize("function", [plain, shown, lambda text: str(LoadError(text))])
def test_every_character_is_shown_or_escaped(function: object) -> None:
    assert callable(function)
    for character in EVERY:
        if character == "\n" and function not in (plain, shown):
            continue  # an error may have several lines
        made = function(f"a{character}b")
        hidden = category(character)[0] == "C" or category(character) in ("Zl", "Zp")
        if hidden or character in INVISIBLE:
            assert made.isascii() and made.isprintable(), hex(ord(character))
            assert f"{ord(character):x}" in made or character in "\t\n\r", hex(ord(character))


@pytest.mark.parametrize(
    "text", ["tie/head", "größe", "模型", "модель", "e\u0301", "a\u00a0b", "🤗"]
)
def test_text_that_can_be_read_stays(text: str) -> None:
    assert plain(text) == text


def test_only_what_is_hidden_is_escaped() -> None:
    assert plain("a\\b'\u061c\u200bé") == "a\\b'\\u061c\\u200bé"
    assert plain_lines("a\x1b\nb\u202e") == "a\\x1b\nb\\u202e"
    assert shown("a'\u061c\u200bé") == "a'\\u061c\\u200bé"
