"""docs/reading.md: its files exist, its line counts and the outputs it shows are right.

`REWRITE=1 python -m pytest tests/test_reading.py` writes the counts and the outputs into the page.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.test_tour import run

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reading.md"
STOP = re.compile(r"^## (\d+)\. `([^`]+)`, ([\d,]+) lines$", re.MULTILINE)
TOTAL = re.compile(r"([\d,]+) lines in all")
BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"`(reference_loader/[^`]+)`")
FUNCTION = re.compile(r"`(\w+)\(\)`")
TOLERANCE = 0.15


def lines_of(name: str) -> int:
    return len((ROOT / name).read_text("utf-8").splitlines())


def with_counts(page: str, count: Callable[[str], int]) -> str:
    """The page with the line count of each stop, and their sum, as `count` says."""
    total = sum(count(name) for _, name, _ in STOP.findall(page))
    page = STOP.sub(lambda m: f"## {m[1]}. `{m[2]}`, {count(m[2]):,} lines", page)
    return TOTAL.sub(f"{total:,} lines in all", page)


def with_outputs(page: str, printed: Callable[[str], str]) -> str:
    """The page with, under each command, what `printed` says that it prints."""

    def block(match: re.Match[str]) -> str:
        commands = [line[2:] for line in match[0].splitlines() if line.startswith("$ ")]
        return "".join(f"$ {command}\n{printed(command)}" for command in commands)

    return BLOCK.sub(block, page)


def stale_counts(page: str, count: Callable[[str], int]) -> list[str]:
    """The stops whose line count on the page is off by more than the tolerance."""
    written = {name: int(lines.replace(",", "")) for _, name, lines in STOP.findall(page)}
    return [n for n, lines in written.items() if abs(lines - count(n)) > TOLERANCE * count(n)]


def unknown_functions(page: str, source: Callable[[str], str]) -> list[str]:
    """The functions that a stop names and its file does not define."""
    found = []
    parts = STOP.split(page)[1:]
    for name, text in zip(parts[1::4], parts[3::4], strict=True):
        defined = {
            node.name
            for node in ast.walk(ast.parse(source(name)))
            if isinstance(node, ast.FunctionDef)
        }
        section = text.partition("\n## ")[0]
        found += [f"{name}: {each}" for each in FUNCTION.findall(section) if each not in defined]
    return found


@pytest.fixture
def printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], str]:
    """What a command of the page prints, the part after a pipe run by a shell."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def output(command: str) -> str:
        first, _, pipe = command.partition(" | ")
        text = run(first, capsys)
        if pipe:
            done = subprocess.run(
                pipe, shell=True, input=text, capture_output=True, text=True, check=False
            )
            assert done.stdout, f"{command} prints nothing: {done.stderr}"
            text = done.stdout
        return "".join(f"{line.rstrip()}\n" for line in text.strip("\n").splitlines())

    return output


def test_the_commands_print_what_the_page_shows(printed: Callable[[str], str]) -> None:
    page = PAGE.read_text("utf-8")
    fresh = with_outputs(page, printed)
    if os.environ.get("REWRITE"):
        PAGE.write_text(with_counts(fresh, lines_of), "utf-8")
    else:
        assert fresh == page, "docs/reading.md is stale: REWRITE=1 pytest tests/test_reading.py"


def test_the_line_counts_are_about_right() -> None:
    page = PAGE.read_text("utf-8")
    assert stale_counts(page, lines_of) == []
    total = TOTAL.search(page)
    assert total
    written = sum(int(lines.replace(",", "")) for _, _, lines in STOP.findall(page))
    assert int(total[1].replace(",", "")) == written


def test_the_page_is_an_afternoon() -> None:
    stops = STOP.findall(PAGE.read_text("utf-8"))
    assert [number for number, _, _ in stops] == [str(n) for n in range(1, len(stops) + 1)]
    assert 7 <= len(stops) <= 9
    assert sum(lines_of(name) for _, name, _ in stops) < 1300


def test_the_files_and_functions_exist() -> None:
    page = PAGE.read_text("utf-8")
    assert [name for name in NAMED.findall(page) if not (ROOT / name).is_file()] == []
    assert unknown_functions(page, lambda name: (ROOT / name).read_text("utf-8")) == []


EXAMPLE = "2 lines in all\n\n## 1. `a.py`, 2 lines\n\n`f()`\n\n```console\n$ x | y\nold\n```\n"


def test_what_is_stale_is_noticed_and_rewritten() -> None:
    """The four checks can fail, and rewriting mends two of them."""
    assert stale_counts(EXAMPLE, lambda _: 3) == ["a.py"]
    assert stale_counts(EXAMPLE, lambda _: 2) == []
    assert unknown_functions(EXAMPLE, lambda _: "def g(): ...") == ["a.py: f"]
    assert unknown_functions(EXAMPLE, lambda _: "def f(): ...") == []
    rewritten = with_counts(with_outputs(EXAMPLE, lambda command: f"<{command}>\n"), lambda _: 3000)
    assert "3,000 lines in all" in rewritten
    assert "`a.py`, 3,000 lines\n" in rewritten
    assert "$ x | y\n<x | y>\n```" in rewritten
    assert with_outputs(rewritten, lambda command: f"<{command}>\n") == rewritten
