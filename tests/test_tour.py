"""Every command of docs/tour.md, run as it stands; its output holds the lines shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from conformance.cli import main

TOUR = Path(__file__).parents[1] / "docs" / "tour.md"
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)


def commands() -> list[tuple[str, list[str]]]:
    """Each command of the tour with the lines shown under it, in order."""
    found: list[tuple[str, list[str]]] = []
    for block in BLOCK.findall(TOUR.read_text("utf-8")):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def run(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command prints, run in this process and folder: importing torch takes seconds."""
    program, *words = shlex.split(command)
    if program == "ls":
        return "\n".join(sorted(path.name for path in Path(words[0]).iterdir()))
    assert program == "conformance", f"the tour runs {program}, which nobody runs here"
    code = main(words)
    printed = capsys.readouterr()
    assert code == 0, f"{command}\n{printed.out}{printed.err}"
    return printed.out


def missing_lines(shown: list[str], printed: str) -> list[str]:
    return [line for line in shown if line.strip() and line not in printed]


def test_every_command_prints_what_the_tour_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for command, shown in commands():
        printed = run(command, capsys)
        assert missing_lines(shown, printed) == [], f"{command}\n{printed}"


def test_a_line_that_is_not_printed_is_noticed() -> None:
    assert missing_lines(["a", "b"], "a\nc\n") == ["b"]


def test_the_tour_has_commands() -> None:
    assert len(commands()) >= 8
    assert commands()[0] == ("conformance fixture llama-f16-2 tour-llama", [])


def test_the_files_that_the_tour_names_exist() -> None:
    named = re.findall(r"`((?:reference_loader|tests)/[^`]+)`", TOUR.read_text("utf-8"))
    assert len(named) >= 10
    assert [name for name in named if not (TOUR.parents[1] / name).is_file()] == []


def test_a_failing_command_fails_the_test(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError, match="no-such"):
        run("conformance explain no-such", capsys)
