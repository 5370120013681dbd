"""Whatever a loader does to its process, there is a verdict on it, and the run goes on."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from conformance.cases.case import Case
from conformance.judge import apart
from conformance.judge import session as judging
from conformance.judge.apart import judge_apart
from conformance.judge.session import Session
from conformance.observe.loaders import Loader, stock
from conformance.results.records import AGREE, DIVERGE, ERROR, Result

CASES = ("tie/equal", "tie/different", "tie/neither")


def spoiling(act: Callable[[], Any]) -> Loader:
    """Stock, which does something else to one checkpoint."""

    def loader(model_class: Any, source: Any, **options: Any) -> Any:
        if "tied-separate" in str(source):
            act()
        return stock(model_class, source, **options)

    return loader


@pytest.fixture
def judged(session: Session, case: Callable[[str], Case]) -> Callable[..., list[Result]]:
    """The verdicts on three cases; a process that was warmed up goes on on one thread."""

    def judge(loader: Loader, seconds: float = 20.0, jobs: int = 1) -> list[Result]:
        cases = [case(name) for name in CASES]
        there = replace(session, loader=loader)
        return list(judge_apart(cases, there, seconds, prepared=True, jobs=jobs))

    return judge


@pytest.mark.parametrize(
    ("act", "kind", "told"),
    [
        (lambda: os._exit(3), "crash", "ended with exit code 3"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "crash", "killed by SIGKILL"),
        (lambda: time.sleep(60), "hang", "no answer within 4 seconds"),
        (lambda: sys.exit("done"), "exit", "SystemExit: done"),
    ],
    ids=["ends", "is killed", "hangs", "exits"],
)
def test_the_verdict_is_on_the_load_that_did_it(
    judged: Callable[..., list[Result]], act: Callable[[], Any], kind: str, told: str
) -> None:
    first, second, third = judged(spoiling(act), 4.0)

    assert (first.status, second.status, third.status) == (AGREE, DIVERGE, AGREE)
    (found,) = second.divergences
    assert (found.kind, found.clause, second.impact) == (kind, "STA-18", "fails")
    assert told in found.actual


def test_what_happens_to_the_reference_alone_is_no_verdict(
    judged: Callable[..., list[Result]], monkeypatch: pytest.MonkeyPatch
) -> None:
    observe = judging.expectation

    def expectation(case: Case) -> Any:
        return os._exit(4) if case.id == CASES[1] else observe(case)

    monkeypatch.setattr(judging, "expectation", expectation)
    results = judged(stock)

    assert [each.status for each in results] == [AGREE, ERROR, AGREE]
    assert results[1].reason == "the reference: the process ended with exit code 4"


def test_a_process_that_the_loader_spoilt_is_not_laid_to_the_reference(
    judged: Callable[..., list[Result]], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt: list[bool] = []
    observe = judging.expectation

    def expectation(case: Case) -> Any:
        return os._exit(4) if spoilt else observe(case)

    monkeypatch.setattr(judging, "expectation", expectation)
    results = judged(spoiling(lambda: spoilt.append(True)))

    assert [each.status for each in results] == [AGREE] * 3


@pytest.mark.parametrize("jobs", [2, 9])
def test_several_processes_judge_in_the_order_of_the_cases(
    judged: Callable[..., list[Result]], jobs: int, tmp_path: Any
) -> None:
    """The first case takes longest; the second ends its process. Each has a process of its own."""

    def loader(model_class: Any, source: Any, **options: Any) -> Any:
        (tmp_path / str(os.getpid())).touch()
        if "tied-separate" in str(source):
            os._exit(3)
        if "tied-equal" in str(source):
            time.sleep(1.0)
        return stock(model_class, source, **options)

    results = judged(loader, jobs=jobs)

    assert [each.case for each in results] == list(CASES)
    assert [each.status for each in results] == [AGREE, DIVERGE, AGREE]
    assert len(list(tmp_path.iterdir())) >= 2


def test_its_temporary_files_are_gone(
    judged: Callable[..., list[Result]], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(apart.tempfile, "tempdir", str(tmp_path))

    judged(spoiling(lambda: os._exit(3)))

    assert list(tmp_path.iterdir()) == []
