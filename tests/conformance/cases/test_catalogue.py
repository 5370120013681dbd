"""The catalogue of cases: names, selection, and that the reference itself serves every one."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from conformance.cases.case import ACCEPTABLE, INVALID, VALID, Case
from conformance.cases.catalogue import CASES, select
from conformance.cases.own import REWRITTEN, Own, own_cases
from conformance.judge.checks import objections
from conformance.judge.session import baseline_of
from conformance.observe.observe import observe
from conformance.spec import STAGES, clauses
from conformance_fixtures.faults import FAULTS
from conformance_fixtures.recipes import RECIPES
from conformance_fixtures.write import materialise

# Cases of all stages at once.
OF_NO_STAGE = {"COMBO", "SHAPE"}


def test_ids_are_unique_and_readable() -> None:
    ids = [case.id for case in CASES]

    assert len(set(ids)) == len(ids)
    for name in ids:
        assert re.fullmatch(r"[a-z]{3,5}/[a-z0-9]+(-[a-z0-9]+)*", name)
        assert name.partition("/")[0].upper() in {*STAGES, *OF_NO_STAGE}


def test_every_stage_has_a_case_of_its_own() -> None:
    assert {case.id.partition("/")[0].upper() for case in CASES} == {*STAGES, *OF_NO_STAGE}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_case_is_well_formed(case: Case) -> None:
    assert case.input_class in (VALID, ACCEPTABLE, INVALID)
    assert set(case.faults) <= set(FAULTS)
    assert case.recipe in RECIPES
    fails = case.input_class == INVALID and "STA-16" not in case.clauses
    assert bool(case.names) == fails, "an error must name something"


def test_every_kind_of_checkpoint_of_the_issue_is_in_some_case() -> None:
    assert {RECIPES[case.recipe].shards for case in CASES} == {1, 2, 3, 7, 8, 30}
    assert {RECIPES[case.recipe].dtype for case in CASES} == {
        "float32",
        "float16",
        "bfloat16",
        "mixed",
    }
    assert {RECIPES[case.recipe].config_style for case in CASES} == {"old", "new"}
    assert {RECIPES[case.recipe].tie_word_embeddings for case in CASES} == {True, False}


@pytest.mark.parametrize("wanted", [VALID, INVALID])
def test_a_sample_of_each_input_class_does_with_the_reference_what_it_must(
    wanted: str, session
) -> None:
    # The first case of each clause; all of them are judged in test_all_cases.
    from conformance.observe.loaders import reference

    chosen = {case.clauses[0]: case for case in reversed(CASES) if case.input_class == wanted}
    for case in list(chosen.values())[::3]:
        observation = observe(case, reference).observation
        assert (observation.exception is None) == (wanted == VALID), (case.id, observation)
        assert objections(case, observation, baseline_of(case)) == ()
        for name in case.names:
            assert name in observation.exception["message"]


@pytest.mark.parametrize(
    ("patterns", "cited", "wanted"),
    [
        ([], [], lambda case: True),
        (["tie/*"], [], lambda case: case.id.startswith("tie/")),
        (["tie/equal"], [], lambda case: case.id == "tie/equal"),
        (["TIE/*"], [], lambda case: False),
        (["tie/*", "out/*"], [], lambda case: case.id[:4] in ("tie/", "out/")),
        ([], ["TIE-1"], lambda case: "TIE-1" in case.clauses),
        ([], ["TIE-1", "INF-2"], lambda case: {"TIE-1", "INF-2"} & set(case.clauses)),
        (["tie/*"], ["INF-2"], lambda c: c.id.startswith("tie/") and "INF-2" in c.clauses),
        (["nothing"], [], lambda case: False),
    ],
)
def test_cases_are_selected_by_glob_and_by_clause(patterns, cited, wanted) -> None:
    assert select(CASES, patterns, cited) == [case for case in CASES if wanted(case)]


def test_selection_reads_its_arguments_once() -> None:
    chosen = select(iter(CASES), iter(["tie/*"]), iter(["TIE-1"]))

    assert [case.id for case in chosen] == [
        case.id for case in CASES if case.id.startswith("tie/") and "TIE-1" in case.clauses
    ]


def test_a_checkpoint_of_ones_own_is_loaded_in_every_way_that_applies(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(materialise("llama-f32"), folder)
    cases = {case.id: case for case in own_cases(Own((folder,)))}

    forms = {case.rpartition("/")[2] for case in cases}
    assert forms > {"as-saved", "base", "causal-lm", "sequence-classification", "float16"}
    assert forms > {"auto", "disk-offload", "threads", "saved-again", *REWRITTEN}
    assert "seq2seq-lm" not in forms  # the config says that it is no encoder-decoder
    assert all(case.source() == folder for case in cases.values() if not case.rewritten)
    assert all(set(case.clauses) <= set(clauses()) for case in cases.values())
    assert cases["own/mine/as-saved"].model_class() is None
    assert cases["own/mine/base"].model_class().__name__ == "AutoModel"
    assert cases["own/mine/float16"].options["dtype"].name == "float16"
    assert cases["own/mine/as-saved"].greedy


def test_a_checkpoint_given_as_the_current_folder_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")

    assert own_cases(Own((Path(),)))[0].id == "own/mine/as-saved"
