"""The check of the wheel can fail, and says of what; no command is left out of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from conformance.cli import COMMANDS
from tests.packaging import wheel_check
from tests.packaging.wheel_check import astray, complaint, not_run, step, steps

PROGRAMS = Path(sys.executable).parent


def test_every_command_is_run() -> None:
    commands = [name for group in COMMANDS.values() for name in group]
    assert not_run(commands, steps()) == []
    assert not_run([*commands, "new"], steps()) == ["new"]


@pytest.mark.parametrize(
    ("line", "expected", "reason"),
    [
        ("python -c 'print(7); exit(3)'", {"code": 0}, "exit code 3, expected 0"),
        ("python -c 'print(7)'", {"code": None}, "exit code 0, expected an error"),
        ("python -c 'print(7)'", {"shows": "8"}, "its output lacks '8'"),
        ("python -c 'print(7)'", {"leaves": "report.html"}, "report.html is not there"),
    ],
)
def test_a_step_that_fails_gives_its_output_and_the_reason(
    line: str, expected: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    told = complaint(step(line, **expected), tmp_path, PROGRAMS)
    assert told.split("\n") == ["7", "", reason]


def test_a_step_that_does_what_it_should_is_passed_over(tmp_path: Path) -> None:
    line = 'python -c \'open("made", "w"); print(7); exit(3)\''
    assert complaint(step(line, code=3, shows="^7$", leaves="made"), tmp_path, PROGRAMS) == ""
    assert complaint(step(line, code=None), tmp_path, PROGRAMS) == ""


def test_an_import_from_elsewhere_is_seen(tmp_path: Path) -> None:
    inside = {name: str(tmp_path / name / "__init__.py") for name in wheel_check.PACKAGES}
    nothing = {"fixtures": None, "tests": None}
    assert astray({**inside, **nothing}, tmp_path) == []
    (other,) = astray({**inside, **nothing, "conformance": __file__}, tmp_path)
    assert other.startswith("conformance comes from")
    assert astray({**inside, **nothing, "fixtures": "x"}, tmp_path) == ["the wheel claims fixtures"]


def test_variables_of_the_checkout_do_not_reach_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(wheel_check.ROOT))
    line = "python -c 'import os; print(os.environ.get(\"PYTHONPATH\"))'"
    assert complaint(step(line, shows="^None$"), tmp_path, PROGRAMS) == ""
