"""`conformance repro`: the folder alone, run by an interpreter that knows nothing of us."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.cases.case import Case
from conformance.cases.catalogue import CASES
from conformance.cli import main
from conformance.observe.loaders import reference
from conformance.observe.observe import observe
from conformance.repro.bundle import OURS
from conformance.repro.folder import NotReproducible, expected, repro
from conformance.repro.script import script
from conformance.results.records import Observation

BY_ID = {case.id: case for case in CASES}


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    """As a maintainer upstream would: elsewhere, and without our packages."""
    moved = folder.rename(folder.with_name("elsewhere"))
    blocked = "\n".join(f"sys.modules[{name!r}] = None" for name in OURS)
    path = str(moved / "repro.py")
    code = f"import runpy, sys\n{blocked}\nrunpy.run_path({path!r}, run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False
    )


SLOW = pytest.mark.slow  # each runs two processes that import torch


@pytest.mark.parametrize(
    ("identifier", "status", "told"),
    [
        ("ini/constructor-buffer", "known", "values of scale: expected"),
        pytest.param("idx/leads-outside", "known", "raised by the load: expected", marks=SLOW),
        pytest.param("tie/embedding-only-sharded", "agree", "tie of lm_head.weight", marks=SLOW),
        pytest.param("fmt/pickle-runs-code", "known", "expected", marks=SLOW),
        pytest.param("sta/threads-tied", "known", "in every thread", marks=SLOW),
    ],
)
def test_a_case_without_us(
    identifier: str, status: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["repro", identifier, "--out", str(tmp_path / "it")]) == 0
    assert f"{identifier}: {status}" in capsys.readouterr().out
    about = (tmp_path / "it" / "README.md").read_text("utf-8").strip()
    assert len(about.split("\n\n")) == 3, "three lines"
    done = run(tmp_path / "it")
    assert done.returncode == (0 if status == "agree" else 1), done.stderr
    assert told in done.stdout
    assert "places differ" in done.stdout


def test_every_case_but_those_of_a_hub_and_of_memory_has_a_script() -> None:
    """Its text at least compiles, and names none of our packages."""
    for case in CASES:
        if case.hub is None and not case.id.startswith("mem/"):
            raised = "OSError" if case.input_class == "invalid" else ""
            text = script(case, replace(expected(case, EMPTY, EMPTY), raised=raised), ["about"])
            compile(text, case.id, "exec")
            assert not [name for name in OURS if f"import {name}" in text or f"from {name}" in text]


EMPTY = Observation(state={"before": {}, "after": {"rng": ""}})


@pytest.mark.parametrize("identifier", ["res/hub-by-id", "mem/casting"])
def test_what_cannot_be_told_without_us_is_refused(
    identifier: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = identifier if identifier in BY_ID else next(c.id for c in CASES if c.hub is not None)
    assert main(["repro", known, "--out", str(tmp_path / "it")]) == 2
    assert known in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    assert main(["repro", "res/single", "--out", str(tmp_path)]) == 64
    assert list(tmp_path.iterdir()) == []


def test_a_failure_half_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, session: object
) -> None:
    def full(*arguments: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("conformance.repro.folder.script", full)
    with pytest.raises(OSError, match="no space"):
        repro(BY_ID["res/single"], tmp_path / "it", session)
    assert list(tmp_path.iterdir()) == []


def test_where_the_class_itself_fails_a_model_is_what_is_expected() -> None:
    """Both raise the same: that is not what the script may expect."""
    failed = Observation(
        exception={"types": ["AttributeError"], "message": "no pad_token_id"},
        state={"before": {}, "after": {"rng": ""}},
    )
    assert expected(Case("cfg/x", ("CFG-22",)), failed, failed).raised == ""


def test_a_case_without_a_verdict_is_refused(tmp_path: Path, session: object) -> None:
    broken = replace(BY_ID["res/single"], faults=("module-prefix",))
    assert observe(broken, reference).observation.exception is not None
    with pytest.raises(NotReproducible, match="no verdict"):
        repro(broken, tmp_path / "it", session)
