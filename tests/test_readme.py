"""The numbers and the commands of README.md are those of the project."""

from __future__ import annotations

import re
from pathlib import Path

from conformance.cases.catalogue import CASES
from conformance.cli import COMMANDS
from conformance.mutants import MUTANTS
from conformance.spec import clauses

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")

COUNTS = {"clauses": len(clauses()), "cases": len(CASES), "mutants": len(MUTANTS)}


def wrong_counts(text: str) -> list[str]:
    """Each `622 cases` and its like that is not so; one case, of an excerpt, is no count."""
    found = re.findall(r"\b(\d[\d,]*) (clauses|cases|mutants)\b", text)
    return [
        f"{number} {what}, there are {COUNTS[what]}"
        for number, what in found
        if int(number.replace(",", "")) not in (1, COUNTS[what])
    ]


def test_the_counts_are_right() -> None:
    assert wrong_counts(README) == []


def test_a_wrong_count_is_seen() -> None:
    assert wrong_counts(f"{len(CASES) + 1} cases") == [
        f"{len(CASES) + 1} cases, there are {len(CASES)}"
    ]


def test_every_command_has_its_row() -> None:
    rows = re.findall(r"^\| `conformance (\w+)", README, re.MULTILINE)
    assert rows == [name for group in COMMANDS.values() for name in group]


def test_every_link_leads_to_a_file() -> None:
    root = Path(__file__).parents[1]
    links = re.findall(r"\]\((?!http)([^)#]+)", README)
    assert [link for link in links if not (root / link).exists()] == []
