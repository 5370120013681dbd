"""`conformance spec` and docs/spec.md: a clause, a stage or a deviation as text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conformance.cases.catalogue import CASES
from conformance.commands.spec import UnknownWord, as_markdown, as_text, describe
from conformance.deviations import Deviation, deviations
from conformance.spec import STAGES, clauses

ALL = list(clauses().values())
DEVIATIONS = deviations()


def test_one_clause_as_text_has_its_cases_and_deviations() -> None:
    text = as_text(clauses()["IDX-2"])

    for wanted in (
        clauses()["IDX-2"].statement,
        "idx/stray-duplicate-of-2",
        "stray-duplicate-wins",
    ):
        assert wanted in text


def test_a_clause_says_its_promise_first_then_level_source_cases_and_deviations() -> None:
    clause = clauses()["IDX-2"]
    order = [
        f"IDX-2: {clause.title}",
        clause.statement,
        f"level:  {clause.level}",
        f"source: {clause.source}",
        "cases:  idx/stray-duplicate-of-2",
        "known deviation stray-duplicate-wins (wrong-model, transformers ",
    ]

    places = [as_text(clause).index(text) for text in order]

    assert places == sorted(places)


@pytest.mark.parametrize("word", ["IDX-2", "idx-2", "Idx-2"])
def test_a_clause_is_described_in_any_case_of_letters(word: str) -> None:
    assert describe(word) == as_text(clauses()["IDX-2"])


@pytest.mark.parametrize("word", ["TIE", "tie"])
def test_a_stage_is_described_by_its_clauses(word: str) -> None:
    first, _, *lines = describe(word).splitlines()
    of_stage = [clause for clause in ALL if clause.stage == "TIE"]

    assert first == f"TIE: {STAGES['TIE']}"
    assert [line.split()[0] for line in lines] == [clause.id for clause in of_stage]
    assert all(clause.title in line for clause, line in zip(of_stage, lines, strict=True))


@pytest.mark.parametrize("word", ["stray-duplicate-wins", "Stray-Duplicate-Wins"])
def test_a_deviation_is_described(word: str) -> None:
    (deviation,) = (each for each in DEVIATIONS if each.id == "stray-duplicate-wins")

    text = describe(word)

    for wanted in (
        deviation.reason,
        deviation.releases,
        deviation.upstream,
        "IDX-2",
        clauses()["IDX-2"].statement,
        *deviation.cases,
    ):
        assert wanted in text


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda each: each.id)
def test_every_deviation_is_found_by_its_id(deviation: Deviation) -> None:
    assert describe(deviation.id).startswith(f"{deviation.id}: ")


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("TIE-99", "TIE-9"),
        ("tie99", "TIE-9"),
        ("stray-duplicate-win", "stray-duplicate-wins"),
        ("ti", "TIE"),
        ("mapping", "MAP-6 (Key mapping)"),
        ("zzzz", "`conformance spec` lists the clauses"),
        ("", "`conformance spec` lists the clauses"),
    ],
)
def test_an_unknown_word_is_refused_with_near_ones(word: str, near: str) -> None:
    with pytest.raises(UnknownWord, match=re.escape(near)) as error:
        describe(word)

    assert repr(word) in str(error.value)


def test_the_page_folds_cases_and_deviations_under_the_sentence() -> None:
    clause = clauses()["IDX-2"]
    _, page = as_markdown().split("### IDX-2 ")
    page = page.partition("### ")[0]
    order = [
        clause.title,
        clause.statement,
        "Level: `must`. Source: ",
        "<details><summary>2 cases, 1 known deviation</summary>\n\n",
        "`idx/stray-duplicate-of-2`",
        "Known deviation `stray-duplicate-wins`",
        "\n\n</details>",
    ]

    places = [page.index(text) for text in order]

    assert places == sorted(places)


def test_the_page_shows_every_clause_case_and_deviation() -> None:
    page = as_markdown()

    for clause in ALL:
        assert page.count(f"### {clause.id} ") == 1
        assert clause.statement in page
    for name in [*(case.id for case in CASES), *(deviation.id for deviation in DEVIATIONS)]:
        assert f"`{name}`" in page


def test_the_page_in_docs_is_the_rendered_one() -> None:
    page = Path(__file__).parents[3] / "docs" / "spec.md"
    if not page.is_file():
        pytest.skip("docs/spec.md is not rendered yet")

    assert page.read_text("utf-8") == as_markdown()
