"""A checkout that is not installed runs its tests and its commands."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packaging.environments import empty_environment, outside, share, source_copy

pytestmark = pytest.mark.slow  # `make test-slow`, which CI runs

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run Python in a copy of the checkout, in an environment that lacks the project."""
    home = tmp_path_factory.mktemp("plain")
    source = source_copy(home / "checkout")
    python = empty_environment(home / "venv")
    share(python)

    def run(*words: str, cwd: Path = source) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, *words],
            env=outside(home),
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_project_is_not_installed(plain: Run, tmp_path: Path) -> None:
    """Or what follows would say nothing of the checkout."""
    for package in ("conformance", "conformance_fixtures", "reference_loader"):
        done = plain("-c", f"import {package}", cwd=tmp_path)
        assert f"No module named '{package}'" in done.stderr
    assert (
        "from-pretrained-conformance (not installed)"
        in plain("-m", "conformance", "--version").stdout
    )


def test_the_tests_of_a_gpu_are_found(plain: Run) -> None:
    done = plain("-m", "pytest", "-m", "gpu", "--collect-only", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tests/gpu/test_gpu_cases.py::" in done.stdout


def test_a_case_is_judged(plain: Run) -> None:
    done = plain("-m", "conformance", "check", "--case", "res/single", "--out", "../report")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 cases: 1 agree" in done.stdout
