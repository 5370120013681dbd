"""Targets: what a word means, and environments that are whole or not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conformance.releases import targets
from conformance.releases.targets import BadTarget, Target, TargetNotMade, interpreter, parse


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FROM_PRETRAINED_CONFORMANCE_CACHE", str(tmp_path))
    return tmp_path / "environments"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would be installed, without a registry: the commands, in order."""
    commands: list[list[str]] = []

    def install(requirements, home, target) -> None:
        commands.append(list(requirements))

    monkeypatch.setattr(targets, "_install", install)
    return commands


@pytest.mark.parametrize(
    ("word", "requirements"),
    [
        ("4.57.6", ("transformers==4.57.6",)),
        ("transformers==5.0.0", ("transformers==5.0.0",)),
        (
            "transformers==5.0.0, accelerate==1.10.1",
            ("accelerate==1.10.1", "transformers==5.0.0"),
        ),
        ("torch==2.12.1", ("torch==2.12.1",)),
    ],
)
def test_requirements(word: str, requirements: tuple[str, ...]) -> None:
    assert parse(word) == Target(word, requirements=requirements)


def test_an_interpreter_is_taken_as_it_is() -> None:
    assert interpreter(parse("current")) == Path(sys.executable)
    assert interpreter(parse(f"python:{sys.executable}")) == Path(sys.executable)


@pytest.mark.parametrize(
    "word",
    [
        "python:/no/such/python",
        "nonsense==",
        "a b",
        "",
        "nope",
        "transformers>=5",
        "requests==2.0",
        "transformers @ https://a.b/c.whl",
        "-r x",
    ],
)
def test_what_names_no_target_is_refused(word: str) -> None:
    with pytest.raises(BadTarget):
        parse(word)


def test_what_an_environment_holds_is_held_against_its_target() -> None:
    target = parse("transformers==5.0.0,huggingface_hub==1.5")
    assert target.is_met_by({"transformers": "5.0.0", "huggingface_hub": "1.5", "numpy": "2"})
    assert not target.is_met_by({"transformers": "5.0.1", "huggingface_hub": "1.5"})
    assert not target.is_met_by({"transformers": "5.0.0", "huggingface_hub": None})


def test_an_environment_sees_what_it_does_not_hold(cache: Path, installed: list[list[str]]) -> None:
    python = interpreter(parse("4.57.6"))
    code = "import sys, torch; print(torch.__version__, sys.prefix)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    import torch

    assert done.stdout.split() == [torch.__version__, str(python.parents[1])]
    assert installed == [["transformers==4.57.6"]]


def test_it_is_made_once(installed: list[list[str]]) -> None:
    told: list[str] = []
    first, second = (interpreter(parse("4.57.6"), told.append) for _ in range(2))
    assert first == second
    assert (len(installed), len(told)) == (1, 1)
    assert interpreter(parse("4.57.5")) != first


def test_another_package_in_the_calling_environment_makes_another(
    installed: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found there was not installed: the environment would silently hold the new one."""
    first = interpreter(parse("4.57.6"))
    shared = targets._shared()
    assert any(each.startswith("transformers==") for each in shared)
    monkeypatch.setattr(targets, "_shared", lambda: [*shared, "transformers==4.57.6"])
    assert interpreter(parse("4.57.6")) != first


def test_a_torch_of_its_own_is_not_shared(installed: list[list[str]]) -> None:
    python = interpreter(parse("torch==2.12.1,accelerate==1.10.1"))
    assert not list(python.parents[1].rglob("shared.pth"))
    (requirements,) = installed
    assert {"torch==2.12.1", "accelerate==1.10.1"} <= set(requirements)
    assert sum(each.startswith("accelerate") for each in requirements) == 1
    assert any(each.startswith("transformers==") for each in requirements)


def test_what_cannot_be_installed_is_named_and_leaves_nothing(cache: Path) -> None:
    with pytest.raises(TargetNotMade, match=r"no-such-package-of-ours==1\.0"):
        interpreter(Target("x", requirements=("no-such-package-of-ours==1.0",)))
    assert [each.name for each in cache.iterdir() if not each.name.endswith(".lock")] == []


def test_a_killed_run_leaves_nothing_that_a_later_one_takes_for_whole(
    cache: Path, installed: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(targets, "_install", killed)
        patch.setattr(targets.shutil, "rmtree", lambda *a, **k: None)  # a killed run tidies nothing
        with pytest.raises(Killed):
            interpreter(parse("4.57.6"))
    assert list(cache.glob(".*.partial")), "the test makes no sense without a half environment"

    python = interpreter(parse("4.57.6"))

    assert python.exists()
    assert len(installed) == 1
    assert not list(cache.glob(".*.partial"))


def test_the_command_prints_the_interpreter(
    installed: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """On its own on standard output, for a shell to take; made once."""
    for told in ("making the environment of 4.57.6\n", ""):
        assert targets.main(["4.57.6"]) == 0
        shown = capsys.readouterr()
        assert shown.out == f"{interpreter(parse('4.57.6'))}\n"
        assert shown.err == told
    assert len(installed) == 1


@pytest.mark.parametrize(("word", "code"), [("a b", 64), ("peft==0.0.0.1", 2)])
def test_the_command_prints_nothing_where_there_is_no_environment(
    word: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(requirements: object, home: object, target: Target) -> None:
        raise TargetNotMade(f"{target.name} cannot be installed")

    monkeypatch.setattr(targets, "_install", refuse)

    assert targets.main([word]) == code

    shown = capsys.readouterr()
    assert shown.out == ""
    assert word in shown.err


def test_nothing_is_compiled_while_installing(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(targets, "_run", lambda command, target: commands.append(list(command)))
    monkeypatch.setattr(targets.shutil, "which", lambda name: None)

    targets._install(["transformers==4.57.6"], Path("home"), parse("4.57.6"))

    (command,) = commands
    assert "--no-compile" in command
