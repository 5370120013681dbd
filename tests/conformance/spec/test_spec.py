"""The specification is whole: every clause has a case, and every case cites clauses."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter

import pytest
from packaging.specifiers import SpecifierSet

from conformance import spec
from conformance.cases.catalogue import CASES
from conformance.deviations import ARCH, deviations
from conformance.judge.divergences import INFO_KINDS, TENSOR_KINDS
from conformance.results.impacts import IMPACTS, OF_KIND
from conformance.spec import LEVELS, STAGES, clause_for, clauses
from conformance.world.architectures.types import model_types

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
    "gradient",
    "order",
    "module",
    "use",
    "state",
    "accepted",
    "rejected",
    "crash",
    "hang",
    "exit",
    "no-model",
    "secret",
    "log",
    "type",
    "exception",
    "message",
)
REJECTION = {"accepted", "exception", "message"}
ALL = list(clauses().values())
DEVIATIONS = deviations()
BY_ID = {case.id: case for case in CASES}


def by_id(thing: object) -> str:
    return str(thing.id)  # type: ignore[attr-defined]


def bad_title(title: str) -> str:
    """What keeps it from being what an engineer would search for; "" if nothing does."""
    first, *others = title.split() or [""]
    if not 0 < len(title) <= 60:
        return "it is not between 1 and 60 characters long"
    if title[-1] in ".:,;" or first in ("A", "An", "The", "What", "Where", "When"):
        return "it is a sentence, or the beginning of one"
    if not (first[0].isupper() or "_" in first):
        return "it begins with a small letter"
    if len([word for word in others if re.fullmatch("[A-Z][a-z]+", word)]) > 1:
        return "it is in title case"
    return ""


def bad_statement(level: str, statement: str) -> str:
    """What keeps it from being one promise of its level, subject first; "" if nothing does."""
    words = {word for word in ("MUST", "SHOULD", "MAY") if re.search(rf"\b{word}\b", statement)}
    if words != {"must": {"MUST"}, "should": {"SHOULD"}, "observed": set()}[level]:
        return f"a clause of level {level} says {words or 'neither MUST nor SHOULD'}"
    if not statement.endswith(".") or "  " in statement or "\n" in statement:
        return "it is no whole line"
    if not (statement[0].isupper() or statement[0] == "`"):
        return "it begins with a small letter"
    if re.match(r"(With|Without|Where|When|If|In|For|Under|After|Of|On)\b", statement):
        return "its subject is not first"
    if len(re.findall(r"\.(?= |$)", statement)) > 2:
        return "it is more than two sentences"
    return ""


def bad_source(source: str) -> str:
    """What keeps it from being links, or a decision of ours with its reason; "" if nothing does."""
    for part in source.split("; "):
        if not re.fullmatch(r"https://[^\s()]+( \(.+\))?|this project: \S.+", part):
            return f"{part!r} is neither a link nor a decision of this project"
    return ""


def test_there_are_thirty_clauses_over_the_stages_that_the_issue_names() -> None:
    wanted = {"RES", "IDX", "CFG", "DTY", "INI", "MAP", "MIS", "TIE", "INF", "OUT"}

    assert len(ALL) >= 30
    assert wanted <= {clause.stage for clause in ALL}


def test_ids_rise_stage_by_stage_and_none_is_used_twice() -> None:
    order = [(list(STAGES).index(clause.stage), clause.number) for clause in ALL]

    assert order == sorted(set(order))
    assert [clause.id for clause in ALL] == list(clauses())
    assert {stage: spec.clauses()[f"{stage}-1"].number for stage in STAGES} == dict.fromkeys(
        STAGES, 1
    )


@pytest.mark.parametrize("clause", ALL, ids=by_id)
def test_a_clause_says_what_why_and_how_strictly(clause: spec.Clause) -> None:
    assert clause.level in LEVELS
    assert clause.stage in STAGES
    assert bad_title(clause.title) == ""
    assert bad_statement(clause.level, clause.statement) == ""
    assert bad_source(clause.source) == ""
    assert clause.kinds
    assert set(clause.kinds) <= set(KINDS)
    assert set(clause.general) <= set(KINDS)
    assert any(clause.id in case.clauses for case in CASES), "no case checks it"


def test_titles_are_of_one_clause_or_stage_each() -> None:
    titles = Counter(text.lower() for text in [*(clause.title for clause in ALL), *STAGES.values()])

    assert [title for title, times in titles.items() if times > 1] == []


@pytest.mark.parametrize("about", STAGES.values())
def test_a_stage_has_a_title(about: str) -> None:
    assert bad_title(about) == ""


@pytest.mark.parametrize(
    "title",
    [
        "",
        "truncated payload",
        "Truncated payload.",
        "A truncated payload",
        "What is not there",
        "Truncated Payload Bytes",
        "Truncated payload of a file that is shorter than its header says",
    ],
)
def test_a_title_that_nobody_would_search_for_is_seen(title: str) -> None:
    assert bad_title(title)


@pytest.mark.parametrize(
    "title",
    ["Truncated payload", "model_type ignored", "Hub cache", "Zip and RNG state (max_memory)"],
)
def test_a_plain_title_is_let_be(title: str) -> None:
    assert bad_title(title) == ""


@pytest.mark.parametrize(
    ("level", "statement"),
    [
        ("must", "The loader rejects it."),
        ("must", "The loader MUST reject it. The loader SHOULD name it."),
        ("should", "The loader MUST reject it."),
        ("should", "The loader rejects it."),
        ("observed", "The loader MUST reject it."),
        ("observed", "The loader MAY reject it."),
        ("must", "The loader MUST reject it"),
        ("must", "the loader MUST reject it."),
        ("must", "The loader MUST reject  it."),
        ("must", "With `dtype`, the loader MUST reject it."),
        ("must", "Where both lie there, one MUST be read."),
        ("must", "One MUST be. Two MUST be. Three MUST be."),
    ],
)
def test_a_statement_that_is_no_plain_promise_is_seen(level: str, statement: str) -> None:
    assert bad_statement(level, statement)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "plain correctness",
        "transformers 5.24.0, hub.py",
        "this project",
        "https://a.b and https://c.d",
    ],
)
def test_a_source_that_leads_nowhere_is_seen(source: str) -> None:
    assert bad_source(source)


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
    ours = [glob for glob in deviation.cases if not glob.startswith(ARCH)]
    covered = [fnmatch.filter(BY_ID, glob) for glob in ours]
    assert all(covered), "it names a case that does not exist"
    cited = [BY_ID[name].clauses for names in covered for name in names]
    answering = {clause_for(kind, clauses) for kind in deviation.kinds for clauses in cited}
    if ours:
        assert deviation.clause in answering.union(*cited), "its divergences show at another clause"
    types = {glob.split("/")[1] for glob in deviation.cases if glob.startswith(ARCH)}
    assert types <= {"*", *model_types()}, "it names a model type that does not exist"
    assert deviation.test or not types, "what is wrong with types has a test for transformers"
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


@pytest.mark.parametrize(
    "changed", [{"id": "TIE-3"}, {"id": "TIE-x"}, {"id": "MAP-4"}, {"level": "may"}], ids=str
)
def test_a_clause_out_of_order_or_of_an_unknown_level_is_refused(
    changed: dict[str, object],
) -> None:
    entry = {
        "id": "TIE-5",
        "level": "must",
        "title": "a title",
        "statement": "It is so.",
        "source": "here",
        "kinds": ["tie"],
    }
    assert spec._clause_of("TIE", 3, dict(entry)).kinds == ("tie",)

    with pytest.raises(ValueError, match=r"TIE\.toml: "):
        spec._clause_of("TIE", 3, entry | changed)
