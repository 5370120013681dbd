"""The specification is whole: every clause has a case, and every case cites clauses."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from conformance import spec
from conformance.cases.catalogue import CASES
from conformance.commands.specification import as_markdown, as_text
from conformance.deviations import deviations
from conformance.judge.divergences import INFO_KINDS, TENSOR_KINDS
from conformance.results.impacts import IMPACTS, OF_KIND
from conformance.spec import LEVELS, STAGES, clause_for, clauses

# DESIGN, section 2.
KINDS = (
    "values",
    "dtype",
    "shape",
    "device",
    "stride",
    "tie",
    "requires_grad",
    "kind-of-tensor",
    "missing",
    "unexpected",
    "mismatched",
    "training",
    "config",
    "generation-config",
    "device-map",
    "output",
    "state",
    "accepted",
    "rejected",
    "exception",
    "message",
)
REJECTION = {"accepted", "exception", "message"}
ALL = list(clauses().values())
DEVIATIONS = deviations()
BY_ID = {case.id: case for case in CASES}


def by_id(thing: object) -> str:
    return str(thing.id)  # type: ignore[attr-defined]


def test_there_are_thirty_clauses_over_the_stages_that_the_issue_names() -> None:
    wanted = {"RES", "IDX", "CFG", "DTY", "INI", "MAP", "MIS", "TIE", "INF", "OUT"}

    assert len(ALL) >= 30
    assert wanted <= {clause.stage for clause in ALL}


def test_ids_are_numbered_from_one_stage_by_stage() -> None:
    count = Counter(clause.stage for clause in ALL)
    wanted = [f"{stage}-{n}" for stage in STAGES for n in range(1, count[stage] + 1)]

    assert list(clauses()) == wanted
    assert [clause.id for clause in ALL] == wanted


@pytest.mark.parametrize("clause", ALL, ids=by_id)
def test_a_clause_says_what_why_and_how_strictly(clause: spec.Clause) -> None:
    assert clause.level in LEVELS
    assert clause.stage in STAGES
    assert clause.title
    assert not clause.title.endswith(".")
    assert clause.statement.endswith(".")
    assert "  " not in clause.statement
    assert clause.source.strip()
    assert clause.kinds
    assert set(clause.kinds) <= set(KINDS)
    assert set(clause.general) <= set(KINDS)
    assert any(clause.id in case.clauses for case in CASES), "no case checks it"


@pytest.mark.parametrize("case", CASES, ids=by_id)
def test_a_case_cites_clauses_that_exist_and_that_its_outcome_can_break(case) -> None:
    assert case.clauses
    assert len(set(case.clauses)) == len(case.clauses)
    assert set(case.clauses) <= set(clauses())
    if case.input_class == "invalid":
        governed = {kind for name in case.clauses for kind in clauses()[name].kinds}
        assert governed >= REJECTION, "nobody answers for a wrong rejection"


def test_a_kind_has_one_clause_that_answers_for_it_in_general() -> None:
    general = Counter(kind for clause in ALL for kind in clause.general)

    assert general == dict.fromkeys(KINDS, 1)


def test_every_kind_is_governed_by_some_clause() -> None:
    governed = {kind for clause in ALL for kind in (*clause.kinds, *clause.general)}

    assert governed == set(KINDS)


def test_what_comparing_can_find_is_of_the_vocabulary() -> None:
    assert {*TENSOR_KINDS.values(), *INFO_KINDS.values()} <= set(KINDS)


@pytest.mark.parametrize(
    ("kind", "cited", "answering"),
    [
        ("values", ("TIE-1", "MAP-1"), "TIE-1"),
        ("values", ("OUT-1", "MAP-1"), "MAP-1"),
        ("training", ("TIE-1",), "OUT-4"),
        ("no such kind", ("TIE-1", "MAP-1"), "TIE-1"),
    ],
)
def test_the_first_cited_clause_of_a_kind_answers_else_the_general_one(
    kind: str, cited: tuple[str, ...], answering: str
) -> None:
    assert clause_for(kind, cited) == answering


@pytest.mark.parametrize(
    ("kind", "where", "cited", "answering"),
    [
        ("config", "loading info", ("CFG-2",), "INF-1"),
        ("config", "loading info", ("CFG-2", "INF-4"), "INF-4"),
        ("output", "tokens", ("OUT-1", "OUT-2"), "OUT-3"),
        ("output", "logits", ("OUT-1", "OUT-3"), "OUT-1"),
    ],
)
def test_the_clause_of_a_place_answers_there_and_one_that_is_cited_before_others(
    kind: str, where: str, cited: tuple[str, ...], answering: str
) -> None:
    assert clause_for(kind, cited, where) == answering


def test_every_kind_has_a_default_impact() -> None:
    assert set(OF_KIND) == set(KINDS)
    assert set(OF_KIND.values()) <= set(IMPACTS)


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=by_id)
def test_a_deviation_names_what_exists(deviation) -> None:
    assert deviation.clause in clauses()
    assert deviation.cases
    covered = [fnmatch.filter(BY_ID, glob) for glob in deviation.cases]
    assert all(covered), "it names a case that does not exist"
    cited = [BY_ID[name].clauses for names in covered for name in names]
    answering = {clause_for(kind, clauses) for kind in deviation.kinds for clauses in cited}
    assert deviation.clause in answering.union(*cited), "its divergences show at another clause"
    assert deviation.kinds
    assert set(deviation.kinds) <= set(KINDS)
    for within in deviation.ranges:
        assert str(SpecifierSet(within.releases)), "known in every release is known in none"
        assert within.reason.endswith(".")
    assert deviation.impact in IMPACTS
    assert deviation.upstream == "none found" or re.fullmatch(
        r"https://\S+[^\s.,]", deviation.upstream
    )


def test_deviations_have_names_of_their_own() -> None:
    assert len({deviation.id for deviation in DEVIATIONS}) == len(DEVIATIONS)


def test_one_clause_as_text_has_its_cases_and_deviations() -> None:
    text = as_text(clauses()["IDX-2"])

    for wanted in (
        clauses()["IDX-2"].statement,
        "idx/stray-duplicate-of-2",
        "stray-duplicate-wins",
    ):
        assert wanted in text


def test_the_page_shows_every_clause_case_and_deviation() -> None:
    page = as_markdown()

    for clause in ALL:
        assert page.count(f"### {clause.id} ") == 1
        assert clause.statement in page
    for name in [*BY_ID, *(deviation.id for deviation in DEVIATIONS)]:
        assert f"`{name}`" in page


def test_the_page_in_docs_is_the_rendered_one() -> None:
    page = Path(__file__).parents[3] / "docs" / "spec.md"
    if not page.is_file():
        pytest.skip("docs/spec.md is not rendered yet")

    assert page.read_text("utf-8") == as_markdown()


@pytest.mark.parametrize("changed", [{"id": "TIE-2"}, {"id": "MAP-1"}, {"level": "may"}], ids=str)
def test_a_clause_out_of_order_or_of_an_unknown_level_is_refused(
    changed: dict[str, object],
) -> None:
    entry = {
        "id": "TIE-1",
        "level": "must",
        "title": "a title",
        "statement": "It is so.",
        "source": "here",
        "kinds": ["tie"],
    }
    assert spec._clause("TIE", 1, dict(entry)).kinds == ("tie",)

    with pytest.raises(ValueError, match=r"TIE\.toml: clause 1"):
        spec._clause("TIE", 1, entry | changed)
