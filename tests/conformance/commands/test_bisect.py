"""`conformance bisect`: steps, what cannot be judged, what tells good from bad."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance.cases.case import Case
from conformance.cli import main
from conformance.commands import bisect as module
from conformance.commands.bisect import NothingToFind, Search, between, bisect, halve, tell_apart
from conformance.judge.changes import Outcome
from conformance.releases.judging import Run
from conformance.releases.published import NotListed
from conformance.releases.targets import TargetNotMade
from conformance.results.records import AGREE, DIVERGE, ERROR, Divergence, Observation, Result

CASE = Case("tie/embedding-only", ("TIE-1",))
RELEASES = [f"5.{minor}.0" for minor in range(16)]
LOST = Divergence("tie", "lm_head.weight", "the embedding", "its own", "TIE-1")
OTHER = Divergence("values", "lm_head.weight", "1", "2", "TIE-1")


def outcome(*divergences: Divergence, status: str = "", release: str = "1") -> Outcome:
    judged = status or (DIVERGE if divergences else AGREE)
    found = Result(CASE.id, CASE.clauses, "valid", release, judged, divergences, reason="killed")
    state = {"before": {"rng": "a"}, "after": {"rng": "a"}}
    return Outcome(CASE, found, None if status == ERROR else Observation(state=state))


@pytest.mark.parametrize("first_bad", range(1, 16))
def test_the_first_bad_one_is_found_in_log2_steps(first_bad: int) -> None:
    asked: list[str] = []

    def is_bad(release: str) -> bool:
        asked.append(release)
        return RELEASES.index(release) >= first_bad

    assert halve(RELEASES, is_bad) == (first_bad - 1, first_bad)
    assert len(asked) <= 4
    assert not {RELEASES[0], RELEASES[-1]} & set(asked), "good and bad are known"


@pytest.mark.parametrize("hidden", [{7}, {6, 7, 8}, set(range(1, 15))])
def test_what_has_no_verdict_is_stepped_around(hidden: set[int]) -> None:
    def is_bad(release: str) -> bool | None:
        place = RELEASES.index(release)
        return None if place in hidden else place >= 8

    low, high = halve(RELEASES, is_bad)
    assert low < 8 <= high
    assert set(range(low + 1, high)) <= hidden


def test_between_goes_from_good_to_bad_whichever_is_newer() -> None:
    every = ["4.57.6", "5.0.0", "5.1.0", "5.2.0"]
    assert between("4.57.6", "5.1.0", every) == ["4.57.6", "5.0.0", "5.1.0"]
    assert between("5.1.0", "4.57.6", every) == ["5.1.0", "5.0.0", "4.57.6"]
    assert between("4.57.5", "5.0.1", every) == ["4.57.5", "4.57.6", "5.0.0", "5.0.1"]
    with pytest.raises(NothingToFind, match="both"):
        between("5.0.0", "5.0.0", every)


def test_what_tells_is_the_clause_then_the_place() -> None:
    good, bad = outcome(), outcome(LOST)
    by_clause = tell_apart(good, bad)
    assert (by_clause.is_bad(bad), by_clause.is_bad(good)) == (True, False)
    assert by_clause.is_bad(outcome(OTHER)), "another way to break the clause is as bad"
    by_place = tell_apart(outcome(OTHER), outcome(OTHER, LOST))
    assert by_place.is_bad(outcome(LOST))
    assert not by_place.is_bad(outcome(OTHER))
    for one, two in ((good, good), (bad, bad)):
        with pytest.raises(NothingToFind, match="do not differ"):
            tell_apart(one, two)
    with pytest.raises(NothingToFind, match="OUT-1"):
        tell_apart(good, bad, "OUT-1")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Releases without environments: `first_bad` on breaks the clause."""

    def make(first_bad: int, broken: dict[str, Exception | str] | None = None) -> None:
        def judge(target: Any, python: Path, work: Any, advance: Any) -> Run:
            release = target.name.removeprefix("transformers==").split(",")[0]
            problem = (broken or {}).get(release)
            if isinstance(problem, Exception):
                raise problem
            bad = RELEASES.index(release) >= first_bad
            found = outcome(*[LOST] * bad, status=problem or "", release=release)
            return Run(target, {"release": release}, [found])

        monkeypatch.setattr(module, "judge_in", judge)
        monkeypatch.setattr(module.targets, "interpreter", lambda target: Path("python"))
        monkeypatch.setattr(module, "_releases_to_bisect", lambda: RELEASES)

    return make


def search(good: str = "5.0.0", bad: str = "5.15.0") -> tuple[int, str]:
    said: list[str] = []
    return bisect(Search(CASE, good, bad), said.append), "\n".join(said)


def test_the_release_its_neighbour_and_the_divergence_are_told(world: Callable[..., None]) -> None:
    world(11)
    code, said = search()
    assert code == 0
    assert "first bad release: 5.11.0\nlast good release: 5.10.0" in said
    assert "TIE-1: tie of lm_head.weight" in said
    assert "conformance compare 5.10.0 5.11.0 --case tie/embedding-only" in said


def test_what_hides_the_release_is_told(world: Callable[..., None]) -> None:
    world(11, {"5.11.0": TargetNotMade("no wheel"), "5.10.0": ERROR})
    code, said = search()
    assert code == 2
    assert "one of 5.10.0, 5.11.0, 5.12.0" in said
    assert "no wheel" in said
    assert "last good release: 5.9.0" in said


def test_the_releases_between_get_what_both_ends_have(
    world: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    world(11)
    tried: list[str] = []
    judged = module.judge_in

    def judge(target: Any, *rest: Any) -> Run:
        tried.append(target.name)
        return judged(target, *rest)

    monkeypatch.setattr(module, "judge_in", judge)
    ends = [f"transformers=={end},accelerate==1.10.1" for end in ("5.0.0", "5.15.0")]
    assert search(*ends)[0] == 0
    assert all("accelerate==1.10.1" in name for name in tried)
    with pytest.raises(NothingToFind, match="more than their release"):
        search(ends[0], "5.15.0")


def test_ends_without_a_verdict_and_an_index_without_an_answer_are_errors(
    world: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    world(11, {"5.0.0": ERROR})
    words = ["bisect", CASE.id, "--good", "5.0.0", "--bad", "5.15.0"]
    assert main(words) == 2
    assert "no verdict on tie/embedding-only: killed" in capsys.readouterr().err

    def unlisted() -> list[str]:
        raise NotListed("no way to the index")

    monkeypatch.undo()
    monkeypatch.setattr(module, "published", unlisted)
    with pytest.raises(NothingToFind, match="no way"):
        module._releases_to_bisect()


@pytest.mark.parametrize("pattern", ["tie/*", "no/such-case"])
def test_one_case_is_wanted(pattern: str) -> None:
    assert main(["bisect", pattern, "--good", "5.0.0", "--bad", "5.1.0"]) == 64
