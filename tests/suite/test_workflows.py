"""The workflow that other repositories call: its script, with what a caller may give it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

WORKFLOWS = Path(__file__).parents[2] / ".github" / "workflows"

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
