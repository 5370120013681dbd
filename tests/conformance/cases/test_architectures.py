"""The cases on tiny checkpoints of model types, and the known deviations that they have."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from conformance import cli
from conformance.cases.architectures import FORMS, architecture_cases
from conformance.cases.case import Case
from conformance.commands.arguments.shared import UsageError
from conformance.commands.selection import of_architectures
from conformance.deviations import Range, deviations
from conformance.judge.session import Session, judge, rerun
from conformance.observe.loaders import stock
from conformance.results.records import AGREE, DIVERGE, KNOWN
from conformance.world.architectures.build import write
from conformance.world.architectures.types import model_types

# Types that have little in common.
SAMPLE = (
    "chinese_clip",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("llama", "roformer", "mixtral")),
)


@pytest.fixture(scope="module")
def cases_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Case]]:
    """`cases_of(TYPE)`: the cases of a model type; its checkpoint is written the first time."""
    home = tmp_path_factory.mktemp("types")

    @cache
    def of(name: str) -> list[Case]:
        write(model_types([name])[name], home / name)
        return architecture_cases({name: home / name})

    return of


def test_every_form_is_a_case(cases_of: Callable[[str], list[Case]]) -> None:
    assert [case.id for case in cases_of("llama")] == [f"arch/llama/{form}" for form in FORMS]


@pytest.mark.parametrize("name", SAMPLE)
def test_stock_is_as_expected(
    name: str, cases_of: Callable[[str], list[Case]], session: Session
) -> None:
    for case in cases_of(name):
        result = judge(case, session)
        assert result.status in (AGREE, KNOWN), result


@pytest.mark.parametrize(("by", "status"), [(1e-9, AGREE), (1e-3, DIVERGE)])
def test_outputs_of_weights_on_disk_are_held_to_rounding(
    by: float, status: str, cases_of: Callable[[str], list[Case]], judging: Any
) -> None:
    """Where a row begins in memory decides which kernel multiplies it."""

    def moved(model_class: Any, source: Any, **options: Any) -> Any:
        model, info = stock(model_class, source, **options)
        model.lm_head.register_forward_hook(lambda _, __, logits: logits + by)
        return model, info

    case = next(case for case in cases_of("llama") if case.id.endswith("disk-offload"))
    session = judging(moved)
    result = judge(replace(case, clauses=("OFF-1",)), session)
    assert result.status == status, result.divergences


def test_a_case_runs_again_by_its_type(
    session: Session, cases_of: Callable[[str], list[Case]]
) -> None:
    line = rerun(cases_of("llama")[0], session)

    assert line == "conformance check --arch llama --case arch/llama/as-saved"


def test_a_glob_that_matches_no_type_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--arch: no model type of transformers matches"):
        of_architectures(["no-such-*"], tmp_path)


def test_a_type_that_cannot_be_built_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from conformance.world.architectures import build

    monkeypatch.setattr(build, "MOST_PARAMETERS", 10)

    assert of_architectures(["llama"], tmp_path) == []
    assert "not built: llama: ValueError: it has" in capsys.readouterr().err


def test_the_command_judges_a_type_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    out = ["--out", str(tmp_path / "run")]

    assert cli.main(["check", "--arch", "gpt2", "--case", "*/as-saved", *out]) == 0
    assert "1 cases: 1 agree" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir() if "architectures" in path.name] == []


def test_a_deviation_of_types_is_pinned_to_places() -> None:
    """To a weight, where it can be: a type has many."""
    for each in deviations():
        for within in each.ranges:
            assert within.where or not within.of_types, each.id


@pytest.mark.parametrize(
    ("cases", "case", "known"),
    [
        (("ini/x",), "arch/llama/base", True),
        (("arch/llama/*",), "arch/llama/base", True),
        (("arch/bert/*",), "arch/llama/base", False),
        (("arch/bert/*",), "own/bert/base", False),
        (("arch/*",), "own/bert/base", True),
        (("ini/x",), "ini/y", False),
    ],
)
def test_where_a_deviation_is_known(cases: tuple[str, ...], case: str, known: bool) -> None:
    within = Range(">=4.47", cases, ("values",), "why")

    assert within.concerns(case, "5.24.0") is known
