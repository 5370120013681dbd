"""Known deviations are pinned: this kind, at this place, in these releases, in these cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance.cases.case import Case
from conformance.commands import check as check_module
from conformance.deviations import Deviation, Range, deviation, deviations, known, stale
from conformance.judge import verdict
from conformance.judge.session import Session, judge
from conformance.mutants import MUTANTS
from conformance.results.impacts import IMPACTS, counted, gravest
from conformance.results.records import (
    AGREE,
    DIVERGE,
    KNOWN,
    Divergence,
    KnownDeviation,
    Result,
    read_report,
)


def entry(
    name: str,
    cases: tuple[str, ...],
    kinds: tuple[str, ...],
    releases: str = ">=4",
    reason: str = "It was so once.",
    **more: Any,
) -> Deviation:
    """A deviation of one range."""
    where = more.pop("where", ())
    within = Range(releases, cases, kinds, reason, where)
    return Deviation(
        **{"clause": "RES-1", "impact": "report"} | more, id=name, reason=reason, ranges=(within,)
    )


LOST = entry(
    "buffer-lost",
    ("ini/one", "ini/two"),
    ("values", "output"),
    ">=5.0,<5.9",
    "It is lost.",
    clause="INI-2",
    impact="wrong-model",
    where=("scale", "hidden_states.*"),
)
FROZEN = entry(
    "frozen", ("ini/one",), ("requires_grad",), ">=4.47", "It is frozen.", clause="INI-3"
)
(LOSES,), (FREEZES,) = LOST.ranges, FROZEN.ranges


def divergence(kind: str, where: str) -> Divergence:
    return Divergence(kind, where, "this", "that")


@pytest.mark.parametrize(
    ("kind", "where", "covered"),
    [
        ("values", "scale", True),
        ("output", "hidden_states.0", True),
        ("output", "hidden_states.12", True),
        ("output", "logits", False),
        ("values", "scales", False),
        ("values", "model.scale", False),
        ("values", "Scale", False),
        ("dtype", "scale", False),
        ("", "scale", False),
    ],
)
def test_a_deviation_covers_its_kinds_at_its_places_and_no_more(
    kind: str, where: str, covered: bool
) -> None:
    assert LOSES.covers(divergence(kind, where)) is covered


def test_without_places_it_covers_every_place_of_its_kinds() -> None:
    assert FREEZES.covers(divergence("requires_grad", "anything at all"))
    assert not FREEZES.covers(divergence("values", "anything at all"))


@pytest.mark.parametrize(
    ("release", "concerned"),
    [
        ("4.57.6", False),
        ("5.0.0", True),
        ("5.0.0rc1", False),
        ("5.8.1", True),
        ("5.8.0.dev0", True),
        ("5.9.0", False),
        ("6.0", False),
    ],
)
def test_a_deviation_concerns_its_releases(release: str, concerned: bool) -> None:
    assert LOSES.concerns("ini/one", release) is concerned
    assert not LOSES.concerns("ini/three", release)


BUFFER, GRADIENT = divergence("values", "scale"), divergence("requires_grad", "embedding")


def test_every_divergence_must_be_accounted_for() -> None:
    both = [LOST, FROZEN]

    lost, frozen = LOST.seen(LOSES), FROZEN.seen(FREEZES)
    assert known([BUFFER], "ini/one", "5.1.0", both) == (lost,)
    assert known([BUFFER, GRADIENT, BUFFER], "ini/one", "5.1.0", both) == (lost, frozen, lost)
    assert known([BUFFER, divergence("tie", "head")], "ini/one", "5.1.0", both) is None
    assert known([BUFFER, GRADIENT], "ini/one", "5.1.0", [LOST]) is None
    assert known([BUFFER, GRADIENT], "ini/two", "5.1.0", both) is None, "FROZEN is not of ini/two"
    assert known([BUFFER], "ini/one", "5.9.0", both) is None
    assert known([BUFFER], "ini/one", "5.1.0", []) is None


def result(case: str, status: str) -> Result:
    return Result(case, ("INI-2",), "valid", "current", status)


def test_a_deviation_whose_case_agrees_is_stale() -> None:
    catalogue = ["ini/one", "ini/two"]
    judged = [result("ini/one", AGREE), result("ini/two", KNOWN)]

    assert stale(judged, "5.1.0", catalogue, [LOST]) == [
        "buffer-lost names ini/one, which agrees in 5.1.0"
    ]
    assert stale(judged, "5.9.0", catalogue, [LOST]) == [], "another release is not its affair"


def test_a_case_that_was_not_run_or_diverges_is_not_stale() -> None:
    catalogue = ["ini/one", "ini/two"]

    assert stale([], "5.1.0", catalogue, [LOST, FROZEN]) == []
    assert stale([result("ini/one", DIVERGE)], "5.1.0", catalogue, [LOST, FROZEN]) == []


@pytest.mark.parametrize("release", ["5.1.0", "5.9.0"])
def test_a_case_that_does_not_exist_is_stale_in_any_release(release: str) -> None:
    assert stale([], release, ["ini/one"], [LOST]) == [
        "buffer-lost names the case ini/two, which does not exist"
    ]


# --- globs, for what changes in every case ---

LISTS = entry("lists", ("ini/*",), ("config",), ">=4.47")


def known_by(case: str, *deviations: str) -> Result:
    return replace(result(case, KNOWN), deviation=", ".join(deviations))


def test_a_glob_concerns_every_case_it_matches_and_no_other() -> None:
    (within,) = LISTS.ranges
    assert within.concerns("ini/anything", "5.1.0")
    assert not within.concerns("tie/ini", "5.1.0")
    assert not within.concerns("ini/anything", "4.46")


@pytest.mark.parametrize(
    ("judged", "idle"),
    [
        ([result("ini/one", AGREE), result("ini/two", AGREE)], True),
        ([result("ini/one", AGREE), known_by("ini/two", "other", "lists")], False),
        ([result("ini/one", AGREE), known_by("ini/two", "other")], True),
        ([result("ini/one", AGREE)], False),  # the rest was not run
        ([result("ini/one", AGREE), result("ini/two", DIVERGE)], False),
    ],
)
def test_a_glob_is_stale_once_none_of_its_cases_needs_it(judged: list[Result], idle: bool) -> None:
    complaints = stale(judged, "5.1.0", ["ini/one", "ini/two", "tie/one"], [LISTS])

    wanted = ["lists names ini/*, where it accounts for nothing in 5.1.0"]
    assert complaints == (wanted if idle else [])


def test_a_glob_that_matches_no_case_is_stale() -> None:
    assert stale([], "5.1.0", ["tie/one"], [LISTS]) == [
        "lists names the case ini/*, which does not exist"
    ]


# --- several ranges of one deviation, as the TOML files have them ---

TWO_RANGES: dict[str, Any] = {
    "id": "twice",
    "clause": "MIS-2",
    "impact": "resources",
    "kinds": ["state"],
    "reason": "Both are initialised.",
    "in": [
        {"releases": "==4.57.*", "cases": ["tie/neither", "tie/both"]},
        {"releases": "==5.8.*", "cases": ["tie/neither"], "reason": "One is initialised twice."},
    ],
}


def test_a_range_takes_from_its_entry_what_it_leaves_out() -> None:
    twice = deviation(TWO_RANGES)
    first, second = twice.ranges

    assert (first.kinds, first.reason) == (("state",), "Both are initialised.")
    assert (second.kinds, second.reason) == (("state",), "One is initialised twice.")
    assert twice.releases == "==4.57.* or ==5.8.*"
    assert twice.cases == ("tie/neither", "tie/both")
    assert twice.upstream == "none found"
    drawn = [divergence("state", "rng")]
    told = {
        (case, release): known(drawn, case, release, [twice])
        for case in ("tie/neither", "tie/both")
        for release in ("4.57.6", "5.8.1", "5.9.0")
    }
    assert {place for place, found in told.items() if found} == {
        ("tie/neither", "4.57.6"),
        ("tie/both", "4.57.6"),
        ("tie/neither", "5.8.1"),
    }
    assert {place for place in told if twice.concerns(*place)} == {
        place for place, found in told.items() if found
    }
    assert [twice.is_of(release) for release in ("4.57.6", "5.8.1", "5.9.0")] == [True, True, False]
    (seen,) = told["tie/neither", "5.8.1"] or ()
    assert seen.reason == "One is initialised twice."


def test_a_range_is_stale_by_itself() -> None:
    catalogue = ["tie/neither", "tie/both"]
    judged = [result(case, AGREE) for case in catalogue]

    assert stale(judged, "5.8.1", catalogue, [deviation(TWO_RANGES)]) == [
        "twice names tie/neither, which agrees in 5.8.1"
    ]


def test_an_impact_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="twice: there is no impact 'harmless'"):
        deviation(TWO_RANGES | {"impact": "harmless"})


def test_no_two_entries_tell_the_same_of_one_clause() -> None:
    """What differs from release to release is a range of one entry, and no twin beside it."""
    told = [(each.clause, each.impact, each.reason) for each in deviations()]
    assert len(set(told)) == len(told)


# --- impacts ---


def test_the_gravest_impact_counts() -> None:
    assert gravest(["report", "fails", "resources"]) == "fails"
    assert gravest([]) is None
    assert [gravest([name, "report"]) for name in IMPACTS] == list(IMPACTS)


def test_impacts_are_counted_in_words_gravest_first() -> None:
    seen = ["report", "unsafe", "wrong-model", "report", None]
    assert counted(seen) == "1 can give a wrong model, 1 unsafe, 2 report"


# --- in a run ---

AGREEING = entry("never-true", ("res/single",), ("values",))
MISSPELT = entry("misspelt", ("res/singel",), ("values",))


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put other entries in the place of the TOML files."""

    def put(*entries: Deviation) -> None:
        monkeypatch.setattr(check_module, "deviations", lambda: entries)
        monkeypatch.setattr(verdict, "deviations", lambda: entries)

    return put


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("wrong", [AGREEING, MISSPELT], ids=lambda wrong: wrong.id)
def test_a_stale_entry_makes_the_exit_code_3_and_is_named(
    wrong: Deviation,
    listed: Callable[..., None],
    case: Callable[[str], Case],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    listed(wrong)

    assert check_module.check([case("res/single")], "stock", tmp_path) == 3
    assert f"stale deviation: {wrong.id} names" in capsys.readouterr().out
    assert read_report(tmp_path / "report.jsonl")[-1]["exit_code"] == 3


@pytest.mark.usefixtures("warm")
def test_only_stock_keeps_the_list_up_to_date(
    listed: Callable[..., None], case: Callable[[str], Case], tmp_path: Path
) -> None:
    listed(AGREEING, MISSPELT)

    assert check_module.check([case("res/single")], "reference", tmp_path) == 0


def test_a_divergence_is_known_only_as_the_list_says(
    listed: Callable[..., None], case: Callable[[str], Case], judging: Callable[..., Session]
) -> None:
    trains = judging(MUTANTS["left_in_train_mode"].loader)
    pinned: dict[str, Any] = {"reason": "So it is.", "clause": "OUT-4", "impact": "unsafe"}

    listed(entry("trains", ("res/single",), ("training",), **pinned))
    forgiven = judge(case("res/single"), trains)
    listed(entry("trains", ("res/single",), ("training",), where=("model",), **pinned))
    told = judge(case("res/single"), trains)

    assert (forgiven.status, forgiven.deviation) == (KNOWN, "trains")
    assert forgiven.reason == "So it is."
    assert forgiven.deviations == (
        KnownDeviation("trains", "OUT-4", "unsafe", "So it is.", "none found"),
    )
    assert (told.status, told.deviation, told.deviations) == (DIVERGE, None, ())
    # The deviation's own impact, else the default of the kind.
    assert (forgiven.impact, told.impact) == ("unsafe", "wrong-model")


def test_the_reference_is_forgiven_nothing(
    listed: Callable[..., None], case: Callable[[str], Case], judging: Callable[..., Session]
) -> None:
    listed(entry("trains", ("res/single",), ("training",), clause="OUT-4"))
    session = replace(judging(MUTANTS["left_in_train_mode"].loader), loader_name="reference")

    assert judge(case("res/single"), session).status == DIVERGE
