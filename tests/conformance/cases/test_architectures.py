"""The cases on tiny checkpoints of model types, and the known deviations that they have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conformance.architectures.build import checkpoint
from conformance.architectures.types import model_types
from conformance.cases.architectures import ARCH, FORMS, architecture_cases
from conformance.commands.arguments.shared import UsageError
from conformance.commands.selection import of_architectures
from conformance.deviations import Range, deviations
from conformance.judge.session import Session, judge, rerun
from conformance.results.records import AGREE, KNOWN

# Types that have little in common: one after the other of these is judged in `make test`.
SAMPLE = ("llama", "chinese_clip", "roformer", "mixtral")


def _cases(name: str) -> Any:
    return architecture_cases({name: checkpoint(model_types([name])[name])})


def test_every_form_is_a_case() -> None:
    assert [case.id for case in _cases("llama")] == [f"arch/llama/{form}" for form in FORMS]


@pytest.mark.parametrize("name", SAMPLE)
def test_stock_is_as_expected(name: str, session: Session) -> None:
    for case in _cases(name):
        result = judge(case, session)
        assert result.status in (AGREE, KNOWN), result


def test_a_case_runs_again_by_its_type(session: Session) -> None:
    line = rerun(_cases("llama")[0], session)

    assert line == "conformance check --arch llama --case arch/llama/as-saved"


def test_a_glob_that_matches_no_type_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="--arch: no model type of transformers matches"):
        of_architectures(["no-such-*"])


def test_a_type_that_cannot_be_built_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from conformance.architectures import build

    monkeypatch.setattr(build, "MOST_PARAMETERS", 10)
    monkeypatch.setattr(build, "cache_root", lambda: tmp_path)

    assert of_architectures(["llama"]) == []
    assert "not built: llama: ValueError: it has" in capsys.readouterr().err


def test_a_deviation_of_types_is_pinned_to_places() -> None:
    """It is known on users' checkpoints too, whatever their type."""
    for each in deviations():
        for within in each.ranges:
            if within.cases and all(case.startswith(ARCH) for case in within.cases):
                assert within.where, each.id


@pytest.mark.parametrize(
    ("cases", "case", "known"),
    [
        (("ini/x",), "arch/llama/base", True),
        (("arch/llama/*",), "arch/llama/base", True),
        (("arch/bert/*",), "arch/llama/base", False),
        (("arch/bert/*",), "own/bert/base", True),
        (("ini/x",), "ini/y", False),
    ],
)
def test_where_a_deviation_is_known(cases: tuple[str, ...], case: str, known: bool) -> None:
    within = Range(">=4.47", cases, ("values",), "why")

    assert within.concerns(case, "5.24.0") is known
