"""The suite can fail: every planted fault is caught by its clause, and an honest copy by none."""

from __future__ import annotations

import pytest

from conformance import selftest as selftest_module
from conformance.cases import CASES, select
from conformance.mutants import MUTANTS, Mutant
from conformance.report.explanation import explanation
from conformance.run import Session
from conformance.selftest import false_alarms, selftest, try_mutant
from conformance.spec import clauses


def test_the_faults_that_the_issue_names_are_planted() -> None:
    assert {
        "swapped_projections",
        "one_ulp_off",
        "wrong_buffer",
        "lost_tie",
        "left_in_train_mode",
        "swallowed_missing_key",
    } <= set(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=lambda mutant: mutant.name)
def test_a_mutant_is_killed_by_its_clause(mutant: Mutant, session: Session) -> None:
    assert mutant.clause in clauses()
    assert mutant.fault.strip()

    trial = try_mutant(mutant, session)

    assert trial.killed, f"{mutant.clause} did not catch it; caught by {trial.caught_by}"
    assert 1 <= trial.diverging <= trial.cases == len(select(CASES, [], [mutant.clause]))


def test_an_honest_copy_raises_no_alarm(session: Session) -> None:
    alarms = false_alarms(session)

    assert not alarms, "\n".join(line for result in alarms for line in explanation(result))


def test_a_mutant_without_its_fault_survives(session: Session) -> None:
    harmless = Mutant("harmless", "TIE-1", "None.", session.loader)

    trial = try_mutant(harmless, session)

    assert not trial.killed
    assert trial.diverging == 0


@pytest.fixture
def small_selftest(monkeypatch: pytest.MonkeyPatch, session: Session) -> None:
    """A selftest of one mutant; no false alarms, the honest copy having been judged above."""
    monkeypatch.setattr(selftest_module, "open_session", lambda name: session)
    monkeypatch.setattr(selftest_module, "MUTANTS", {"lost_tie": MUTANTS["lost_tie"]})
    monkeypatch.setattr(selftest_module, "false_alarms", lambda session: [])


@pytest.mark.usefixtures("small_selftest")
def test_selftest_shows_each_mutant_with_what_caught_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert selftest() == 0

    shown = capsys.readouterr().out
    assert "lost_tie" in shown
    assert "killed" in shown
    assert "1 mutants, 0 survive" in shown


@pytest.mark.usefixtures("small_selftest")
def test_selftest_fails_if_a_mutant_survives(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], session: Session
) -> None:
    survivor = Mutant("survivor", "TIE-3", "None.", session.loader)
    monkeypatch.setattr(selftest_module, "MUTANTS", {"survivor": survivor})

    assert selftest() == 1
    assert "survives" in capsys.readouterr().out
