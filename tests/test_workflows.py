"""The workflow that other repositories call, and the night on a GPU: their scripts, carried out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = ROOT / ".github" / "workflows"

STUB = """\
#!/usr/bin/env bash
printf '<%s>\\n' "$@"
exit "$STUB_EXIT"
"""


@pytest.fixture
def compare(tmp_path: Path) -> Any:
    """Run the script of the step, with a `conformance` that tells its arguments."""
    program = tmp_path / "conformance" / "bin" / "conformance"
    program.parent.mkdir(parents=True)
    program.write_text(STUB, "utf-8")
    program.chmod(0o755)
    workflow = yaml.safe_load((WORKFLOWS / "compare.yml").read_text("utf-8"))
    (step,) = (s for s in workflow["jobs"]["compare"]["steps"] if s.get("id") == "compare")
    assert workflow["defaults"]["run"]["shell"] == "bash"

    def run(code: int = 0, **inputs: str) -> tuple[int, list[str]]:
        given = {"PINNED": "", "CANDIDATE": "", "CHECKPOINTS": "", "ACCEPT": ""} | inputs
        assert set(step["env"]) == set(given)
        runner = {"RUNNER_TEMP": str(tmp_path), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            env={**os.environ, **given, **runner, "STUB_EXIT": str(code)},
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        assert (tmp_path / "summary").read_text("utf-8").endswith(done.stdout)
        return done.returncode, [line[1:-1] for line in done.stdout.splitlines()]

    return run


def test_what_a_caller_gives_becomes_arguments(compare: Any, tmp_path: Path) -> None:
    end = ["--format", "markdown", "--out", str(tmp_path / "report")]
    assert compare(PINNED="4.57.6", CANDIDATE="5.23.0") == (
        0,
        ["compare", "4.57.6", "5.23.0", *end],
    )
    given = {"CHECKPOINTS": "models/a\n\nmy models/b\n", "ACCEPT": "ok.toml"}
    assert compare(PINNED="1", CANDIDATE="2", **given) == (
        0,
        ["compare", "1", "2", "models/a", "my models/b", "--accept", "ok.toml", *end],
    )


@pytest.mark.parametrize("hostile", ["$(touch owned)", "`touch owned`", "; touch owned", "'\"*"])
def test_an_input_is_never_code(hostile: str, compare: Any, tmp_path: Path) -> None:
    code, words = compare(PINNED=hostile, CANDIDATE=hostile, CHECKPOINTS=hostile, ACCEPT=hostile)
    assert (code, words[1:6]) == (0, [hostile, hostile, hostile, "--accept", hostile])
    assert not (tmp_path / "owned").exists()


def test_the_exit_code_of_the_comparison_is_that_of_the_job(compare: Any) -> None:
    assert compare(code=1, PINNED="1", CANDIDATE="2")[0] == 1


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.yml")), ids=lambda path: path.name)
def test_no_script_holds_an_input(path: Path) -> None:
    """An expression within a script is replaced before the shell reads it."""
    jobs = yaml.safe_load(path.read_text("utf-8"))["jobs"]
    scripts = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert scripts
    assert not [script for script in scripts if "${{" in script]


@pytest.fixture
def nightly() -> dict[str, Any]:
    """The steps of the night on a GPU, by name."""
    workflow = yaml.safe_load((WORKFLOWS / "gpu-nightly.yml").read_text("utf-8"))
    assert workflow["defaults"]["run"]["shell"] == "bash", "with pipefail"
    return {step["name"]: step for step in workflow["jobs"]["gpu"]["steps"] if "run" in step}


def test_a_night_on_a_gpu_needs_one(nightly: Any) -> None:
    """Every step but the first and the last ends with an error where no GPU is."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    recipes = dict(re.findall(r"^(gpu-\w+):.*\n((?:\t.*\n)+)", makefile, re.MULTILINE))
    called = {word for step in nightly.values() for word in re.findall(r"gpu-\w+", step["run"])}
    assert called == {"gpu-test", "gpu-check", "gpu-bench"}
    assert "-m gpu --require-gpu" in recipes["gpu-test"]
    assert "--device cuda" in recipes["gpu-check"]
    assert "--case 'cuda-*'" in recipes["gpu-bench"]


@pytest.mark.parametrize(("seconds", "code"), [(1.0, 0), (1.2, 1), (None, 2)])
def test_a_slower_night_fails(nightly: Any, tmp_path: Path, seconds: Any, code: int) -> None:
    """And its figures are not those that the next night is held against."""
    for name, clock in (("before/bench.json", 1.0), ("night/bench/bench.json", seconds)):
        row = {"samples": [{"first": clock}], "memory": {"peaks": {}, "gpu": {}}}
        row["memory"]["peaks"] = {"anonymous": 0, "total": 0}
        case = {"case": {"id": "cuda-same", "clock": "first"}, "rows": {"reference": row}}
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(json.dumps({"machine": {}, "cases": [case], "bounds": []}))
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    runner = {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary"), "PYTHONPATH": str(ROOT)}
    names = {"NIGHT": "night", "BEFORE": "before/bench.json"}
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", nightly["Against the night before"]["run"]],
        env={**os.environ, **runner, **names},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert (tmp_path / "summary").read_text("utf-8") == done.stdout
    assert "if" not in nightly["Keep the figures to be held"], "only where every step passed"
