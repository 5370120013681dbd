"""The pytest plugin, judged by the summaries of runs inside a run."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

from conformance.cases.catalogue import CASES, select
from conformance.cases.own import Own, own_cases
from conformance.deviations import deviations
from conformance_fixtures.write import materialise

pytest_plugins = ["pytester"]


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    """Found before pytester moves HOME."""
    return materialise("llama-f32")


@pytest.fixture(autouse=True)
def cache_of_the_user(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester
) -> None:
    """Pytester moves HOME; the fixtures are to stay where they are."""
    cache = checkpoint.parents[1]
    assert cache.name == "fixtures"
    monkeypatch.setenv("FROM_PRETRAINED_CONFORMANCE_CACHE", str(cache.parent))


def ids(result: pytest.RunResult) -> list[str]:
    return [line.partition("::")[2] for line in result.outlines if "::" in line]


def test_every_case_is_an_item_and_its_id_the_case_id(pytester: pytest.Pytester) -> None:
    # In another folder than the package's, as a user has it.
    collected = pytester.runpytest_subprocess("--pyargs", "conformance", "--collect-only", "-q")

    assert ids(collected) == [case.id for case in CASES]


@pytest.mark.slow
def test_items_pass_or_xfail_as_the_verdicts_are(pytester: pytest.Pytester) -> None:
    chosen = [case.id for case in select(CASES, ["tie/*"], [])]

    done = pytester.runpytest_subprocess(
        "--pyargs", "conformance", "--conformance-case", "tie/*", "-v", "-rx"
    )

    release = version("transformers")
    known = [n for n in chosen if any(d.concerns(n, release) for d in deviations())]
    done.assert_outcomes(passed=len(chosen) - len(known), xfailed=len(known))
    assert done.ret == 0
    for name in chosen:
        told = "XFAIL" if name in known else "PASSED"
        done.stdout.fnmatch_lines_random([f"*cases.py::{name} {told}*"])
        if name in known:
            done.stdout.fnmatch_lines([f"XFAIL *cases.py::{name} - known deviation *: *"])


def test_a_foreign_project_adds_the_cases_and_sees_what_fails(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_own="def test_own(): pass")

    done = pytester.runpytest_subprocess(
        *("--conformance", "--conformance-loader", "conformance.mutants:lost_tie"),
        *("--conformance-clause", "TIE-3", "--conformance-clause", "TIE-5"),
        *("--conformance-case", "tie/equal", "--conformance-case", "tie/untied-equal", "-v"),
    )

    done.assert_outcomes(passed=2, failed=1)
    assert done.ret == 1
    done.stdout.fnmatch_lines_random(
        ["*test_own.py::test_own PASSED*", "*tie/equal FAILED*", "*tie/untied-equal PASSED*"]
    )
    done.stdout.fnmatch_lines(
        [
            "tie/equal: diverge, wrong-model",
            "  TIE-3 (must): *",
            "    tie of lm_head.weight",
            "      expected  the embedding",
            "      actual    its own",
            "  rerun: conformance check --case tie/equal --loader conformance.mutants:lost_tie",
        ]
    )
    done.stdout.no_fnmatch_line("*Traceback*")
    done.stdout.no_fnmatch_line("*CaseFailed*runtest*")


def test_a_project_that_asks_for_nothing_gets_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_own="""
        import sys

        def test_own():
            assert "conformance.plugin" in sys.modules
            assert "torch" not in sys.modules
        """
    )

    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_a_checkpoint_of_ones_own_brings_its_cases(
    pytester: pytest.Pytester, checkpoint: Path
) -> None:
    collected = pytester.runpytest_subprocess(
        "--conformance-checkpoint", str(checkpoint), "--collect-only", "-q"
    )

    assert ids(collected) == [case.id for case in own_cases(Own((checkpoint,)))]


def test_collecting_imports_no_torch() -> None:
    code = (
        "import sys, conformance.plugin, conformance.cases;"
        "sys.exit(bool({'torch', 'transformers', 'safetensors'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_plugin_is_installed_under_its_name() -> None:
    (found,) = entry_points(group="pytest11", name="conformance")

    assert Path(found.load().__file__).parent / "cases" / "catalogue.py" == found.load().COLLECTED


@pytest.mark.parametrize("word", ["--pyargs", "--conformance"])
def test_a_glob_that_matches_no_case_fails(pytester: pytest.Pytester, word: str) -> None:
    """Judging nothing is no success, beside tests of one's own that pass either."""
    pytester.makepyfile(test_own="def test_own(): pass")
    words = ["--pyargs", "conformance"] if word == "--pyargs" else [word]

    done = pytester.runpytest_subprocess(*words, "--conformance-case", "no/such/*")

    assert done.ret not in (0, 5)
    done.stdout.fnmatch_lines(["*no conformance case matches*no/such/**"])


@pytest.mark.slow
def test_a_project_with_a_package_called_fixtures_of_its_own(pytester: pytest.Pytester) -> None:
    pytester.mkpydir("fixtures").joinpath("own.py").write_text("VALUE = 7", "utf-8")
    pytester.makepyfile(
        test_own="from fixtures.own import VALUE\ndef test_own(): assert VALUE == 7"
    )

    done = pytester.runpytest_subprocess("--conformance", "--conformance-case", "res/single")

    done.assert_outcomes(passed=2)
