"""One session for the process; what the reference leaves is observed once a case."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance.cases.case import Case
from conformance.cases.catalogue import CASES
from conformance.commands import check as check_module
from conformance.judge import session as run
from conformance.judge.changes import Change
from conformance.judge.session import Session
from conformance.observe.loaders import Loader, find
from conformance.results.records import Observation, Result
from conformance.results.runs import recording


@pytest.fixture(scope="session")
def session() -> Session:
    """Stock, warmed up."""
    return run.open_session("stock")


@pytest.fixture(scope="session", autouse=True)
def remembered() -> Iterator[None]:
    """What the reference leaves is plain data and the same every time: taken once for each case."""
    observe_reference = run.expectation
    kept: dict[str, Observation] = {}

    def expected(case: Case) -> Observation:
        if case.folder is not None or case not in CASES:
            return observe_reference(case)
        if case.id not in kept:
            kept[case.id] = observe_reference(case)
        return kept[case.id]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "expectation", expected)
        yield


@pytest.fixture(autouse=True)
def no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed has its own width, whatever the terminal or pytest-xdist says."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`conformance check` judges in this process, which has loaded and cannot be forked."""
    monkeypatch.setattr(check_module, "PROCESSES", 1)


@pytest.fixture
def judging(session: Session) -> Callable[[Loader], Session]:
    """A session that judges another loader, without a second warm-up."""
    return lambda loader: replace(session, loader_name="tests:loader", loader=loader)


@pytest.fixture
def warm(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """`conformance check` in this process finds its session opened."""

    def opened(name: str, device: str) -> Any:
        return replace(session, loader_name=name, loader=find(name), device=device)

    monkeypatch.setattr(check_module, "open_session", opened)


@pytest.fixture
def case() -> Callable[[str], Case]:
    """A case of the catalogue, by its id."""
    return {case.id: case for case in CASES}.__getitem__


@pytest.fixture
def reported(tmp_path: Path) -> Callable[..., Path]:
    """A folder with the `report.jsonl` of the given records, whole unless told otherwise."""

    def write(
        results: list[Result],
        changes: list[Change] = (),
        targets: tuple[str, ...] = ("4.57.6", "current"),
        exit_code: int = 1,
        whole: bool = True,
        **more: Any,
    ) -> Path:
        versions = {name: {"torch": "2.13.0", "transformers": name} for name in targets}
        header = {"target": targets[-1], "loader": "stock", "versions": versions[targets[-1]]}
        if changes:
            header |= {"targets": list(targets), "environments": versions}
        counted = "change" if changes else "result"
        with recording(tmp_path, header | more, counted) as recorder:
            for record in [*results, *changes]:
                recorder.record(record.record())
            if whole:
                recorder.footer(exit_code, "2026-11-22T00:00:01Z")
        return tmp_path

    return write
