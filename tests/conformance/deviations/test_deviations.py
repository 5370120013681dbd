"""Known deviations are pinned: this kind, at this place, in these releases, in these cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance.cases.case import Case
from conformance.commands import check as check_module
from conformance.deviations import Deviation, known, stale
from conformance.judge import verdict
from conformance.judge.session import Session, judge
from conformance.mutants import MUTANTS
from conformance.results.records import AGREE, DIVERGE, KNOWN, Divergence, Result, read_report

LOST = Deviation(
    id="buffer-lost",
    clause="INI-2",
    cases=("ini/one", "ini/two"),
    kinds=("values", "output"),
    where=("scale", "hidden_states.*"),
    releases=">=5.0,<5.9",
    reason="It is lost.",
    upstream="none found",
)
FROZEN = Deviation(
    id="frozen",
    clause="INI-3",
    cases=("ini/one",),
    kinds=("requires_grad",),
    releases=">=4.47",
    reason="It is frozen.",
    upstream="none found",
)


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
    assert LOST.covers(divergence(kind, where)) is covered


def test_without_places_it_covers_every_place_of_its_kinds() -> None:
    assert FROZEN.covers(divergence("requires_grad", "anything at all"))
    assert not FROZEN.covers(divergence("values", "anything at all"))


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
    assert LOST.concerns("ini/one", release) is concerned
    assert not LOST.concerns("ini/three", release)


BUFFER, GRADIENT = divergence("values", "scale"), divergence("requires_grad", "embedding")


def test_every_divergence_must_be_accounted_for() -> None:
    both = [LOST, FROZEN]

    assert known([BUFFER], "ini/one", "5.1.0", both) == (LOST,)
    assert known([BUFFER, GRADIENT, BUFFER], "ini/one", "5.1.0", both) == (LOST, FROZEN)
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

LISTS = replace(FROZEN, id="lists", cases=("ini/*",), kinds=("config",))


def known_by(case: str, *deviations: str) -> Result:
    return replace(result(case, KNOWN), deviation=", ".join(deviations))


def test_a_glob_concerns_every_case_it_matches_and_no_other() -> None:
    assert LISTS.concerns("ini/anything", "5.1.0")
    assert not LISTS.concerns("tie/ini", "5.1.0")
    assert not LISTS.concerns("ini/anything", "4.46")


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


# --- in a run ---

AGREEING = Deviation(
    "never-true", "RES-1", ("res/single",), ("values",), ">=4", "It was so once.", "none found"
)
MISSPELT = Deviation(
    "misspelt", "RES-1", ("res/singel",), ("values",), ">=4", "It was so once.", "none found"
)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put other entries in the place of `deviations.toml`."""

    def put(*entries: Deviation) -> None:
        monkeypatch.setattr(check_module, "deviations", lambda: entries)
        monkeypatch.setattr(verdict, "deviations", lambda: entries)

    return put


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("entry", [AGREEING, MISSPELT], ids=lambda entry: entry.id)
def test_a_stale_entry_makes_the_exit_code_3_and_is_named(
    entry: Deviation,
    listed: Callable[..., None],
    case: Callable[[str], Case],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    listed(entry)

    assert check_module.check([case("res/single")], "stock", tmp_path) == 3
    assert f"stale deviation: {entry.id} names" in capsys.readouterr().out
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
    pinned: dict[str, Any] = {"releases": ">=4", "reason": "So it is.", "upstream": "none found"}

    listed(Deviation("trains", "OUT-4", ("res/single",), ("training",), **pinned))
    forgiven = judge(case("res/single"), trains)
    listed(Deviation("trains", "OUT-4", ("res/single",), ("training",), where=("model",), **pinned))
    told = judge(case("res/single"), trains)

    assert (forgiven.status, forgiven.deviation) == (KNOWN, "trains")
    assert forgiven.reason == "So it is."
    assert (told.status, told.deviation) == (DIVERGE, None)


def test_the_reference_is_forgiven_nothing(
    listed: Callable[..., None], case: Callable[[str], Case], judging: Callable[..., Session]
) -> None:
    listed(
        Deviation(
            "trains", "OUT-4", ("res/single",), ("training",), ">=4", "So it is.", "none found"
        )
    )
    session = replace(judging(MUTANTS["left_in_train_mode"].loader), loader_name="reference")

    assert judge(case("res/single"), session).status == DIVERGE
