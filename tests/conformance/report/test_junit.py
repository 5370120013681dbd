"""`junit.xml` of a comparison, and the badge: told by the records alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from conformance.judge.changes import (
    ADDED,
    CHANGED,
    CHANGES,
    FIXED,
    NOT_JUDGED,
    REGRESSED,
    REMOVED,
    UNCHANGED,
    Change,
)
from conformance.report.badge import badge
from conformance.report.junit import junit
from conformance.report.stored_run import read_whole
from conformance.results.records import AGREE, KNOWN
from tests.conformance.report.test_html import HOSTILE, NEW, OLD, SEEN, change, divergence, result


def suites(folder: Path) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(junit(read_whole(folder / "report.jsonl")).encode()))


WANTED = {
    REGRESSED: "failure",
    CHANGED: "failure",
    FIXED: None,
    NOT_JUDGED: "error",
    ADDED: None,
    REMOVED: "skipped",
    UNCHANGED: None,
}


def test_every_change_is_a_test_case(reported: Callable[..., Path]) -> None:
    changes = [
        change(f"dty/{kind}", kind, divergences=(divergence(),), reason="why") for kind in CHANGES
    ]
    (suite,) = suites(reported([result(c.case, AGREE) for c in changes], changes))
    assert suite.get("name") == f"{OLD} to {NEW}"
    assert [case.get("name") for case in suite] == [f"dty/{kind}" for kind in CHANGES]
    assert {
        str(case.get("name")).removeprefix("dty/"): next((each.tag for each in case), None)
        for case in suite
    } == WANTED
    told = {name: int(suite.get(name, "")) for name in ("tests", "failures", "errors", "skipped")}
    assert told == {"tests": len(CHANGES), "failures": 2, "errors": 1, "skipped": 1}


def test_a_failure_says_what_and_how_to_see_it_again(reported: Callable[..., Path]) -> None:
    more = {"divergences": (divergence(),), "impact": "wrong-model"}
    found = change("dty/a", REGRESSED, regressed=("DTY-1",), **more)
    ((case,),) = suites(reported([result("dty/a", AGREE)], [found]))
    (failure,) = case
    assert failure.get("message") == "regressed: DTY-1"
    assert failure.get("type") == "wrong-model"
    assert "dtype of lm_head.weight: a → b" in (failure.text or "")
    assert "rerun: rerun dty/a" in (failure.text or "")


def test_what_is_accepted_passes_and_says_so(reported: Callable[..., Path]) -> None:
    more = {"divergences": (divergence(),), "accepted": "we know", "deviation": "some-id"}
    ((case,),) = suites(reported([result("dty/a", AGREE)], [change("dty/a", CHANGED, **more)]))
    (output,) = case
    assert output.tag == "system-out"
    assert output.text == "changed, accepted: we know\nknown deviation some-id in current"


def test_a_known_deviation_that_is_news_fails_all_the_same(reported: Callable[..., Path]) -> None:
    more = {"divergences": (divergence(),), "deviation": "some-id"}
    ((case,),) = suites(reported([result("dty/a", AGREE)], [change("dty/a", REGRESSED, **more)]))
    assert [each.tag for each in case] == ["failure", "system-out"]


def test_a_known_deviation_of_a_check_says_what_it_does_and_where_it_is_told(
    reported: Callable[..., Path],
) -> None:
    seen = result("dty/a", KNOWN, divergences=(divergence(),), **SEEN)
    (case,) = suites(reported([seen], targets=(NEW,)))
    assert case.findtext("system-out") == (
        "known deviation lists-for-sets (report): A list it is. https://x.example/1"
    )


def test_each_step_is_a_suite(reported: Callable[..., Path]) -> None:
    pairs = (("1", "2"), ("2", "3"))
    changes = [Change("dty/a", ("DTY-1",), *pair, UNCHANGED) for pair in pairs]
    found = suites(reported([result("dty/a", AGREE, t) for t in "123"], changes, ("1", "2", "3")))
    assert [suite.get("name") for suite in found] == ["1 to 2", "2 to 3"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_name_is_never_markup(hostile: str, reported: Callable[..., Path]) -> None:
    bad = (divergence(hostile, expected=hostile, actual=hostile, detail=hostile),)
    found = Change(
        *(f"own/{hostile}", ("DTY-1",), hostile, NEW, REGRESSED, bad), rerun=hostile, reason=hostile
    )
    folder = reported([result(found.case, AGREE)], [found], (hostile, NEW))
    ((case,),) = suites(folder)
    assert [each.tag for each in case] == ["failure"]
    assert len(case[0]) == 0


@pytest.mark.parametrize(
    ("code", "colour"), [(0, "#2d7d46"), (1, "#b3261e"), (2, "#b3261e"), (3, "#9a6700")]
)
def test_the_badge_counts_and_takes_the_colour_of_the_exit_code(
    code: int, colour: str, reported: Callable[..., Path]
) -> None:
    results = [result("dty/a", AGREE), result("dty/b", KNOWN, deviation="x")]
    text = badge(read_whole(reported(results, targets=(NEW,), exit_code=code) / "report.jsonl"))
    root = ElementTree.fromstring(text)
    assert root.get("aria-label") == "conformance: 2 cases, 1 known"
    assert colour in text


def test_the_badge_says_the_gravest_impact(reported: Callable[..., Path]) -> None:
    results = [
        *(result(f"dty/{name}", KNOWN, impact="fails") for name in "ab"),
        result("dty/c", KNOWN, impact="report"),
    ]
    root = ElementTree.fromstring(
        badge(read_whole(reported(results, targets=(NEW,)) / "report.jsonl"))
    )
    assert root.get("aria-label") == "conformance: 3 cases, 3 known, 2 fails"


def test_the_badge_of_a_comparison_counts_changes(reported: Callable[..., Path]) -> None:
    changes = [change("dty/a", REGRESSED, divergences=(divergence(),)), change("dty/b", UNCHANGED)]
    folder = reported([result(c.case, AGREE) for c in changes], changes)
    root = ElementTree.fromstring(badge(read_whole(folder / "report.jsonl")))
    assert root.get("aria-label") == "conformance: 2 cases, 1 regressed"
