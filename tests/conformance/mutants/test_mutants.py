"""The suite can fail: every planted fault is caught by its clause, and an honest copy by none."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from conformance.cases.case import Case
from conformance.cases.catalogue import CASES
from conformance.cli import EXIT_USAGE, main
from conformance.commands import selftest as selftest_module
from conformance.commands.selftest import MOST_CASES, Bench, caught_by, selftest
from conformance.judge.apart import judge_apart
from conformance.judge.session import Session, judge
from conformance.mutants import MUTANTS, STAGES, Mutant, honest, planted_in
from conformance.mutants.planting import Load, around, coming_out, going_in, ignoring
from conformance.observe.loaders import reference, stock
from conformance.report.explanation import explanation
from conformance.spec import STAGES as STAGES_OF_CLAUSES
from conformance.spec import clauses

# One divergence as the terminal shows it.
SHOWN = re.compile(r"    [a-z_-]+ of .+\n      expected  (.+)\n      actual    (.+)\n")


@pytest.fixture
def bench(session: Session) -> Bench:
    return Bench(session)


def test_every_stage_of_loading_has_mutants() -> None:
    stages = [mutant.clause.partition("-")[0] for mutant in MUTANTS.values()]

    assert len(stages) >= 40
    assert set(stages) == set(STAGES_OF_CLAUSES)


def test_no_mutant_hides_another() -> None:
    planted = [each for stage in STAGES for each in planted_in(stage)]

    assert len(planted) == len(MUTANTS)
    assert not set(MUTANTS) & {stage.__name__.rpartition(".")[2] for stage in STAGES}


# Their cases take long: several loads each, or every use of a model.
LONG = ("combo/", "shape/", "use/")


@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(
            mutant,
            id=mutant.name,
            marks=[pytest.mark.slow] if mutant.case.startswith(LONG) else [],
        )
        for mutant in MUTANTS.values()
    ],
)
def test_a_mutant_is_killed_by_its_clause_and_it_is_said_how(
    mutant: Mutant, session: Session, case: Callable[[str], Case]
) -> None:
    name = f"conformance.mutants:{mutant.name}"
    session = replace(session, loader=mutant.loader, loader_name=name)
    assert mutant.clause in case(mutant.case).clauses
    assert mutant.fault.endswith(".")

    if mutant.ends:
        (result,) = judge_apart([case(mutant.case)], session, seconds=5.0, prepared=True)
    else:
        result = judge(case(mutant.case), session)

    assert mutant.clause in caught_by(mutant, result, session)
    shown = "\n".join(explanation(result))
    clause = clauses()[mutant.clause]
    assert f"\n  {clause.id} ({clause.level}): {clause.statement}\n" in shown
    assert shown.endswith(f"  rerun: conformance check --case {mutant.case} --loader {name}")
    pairs = SHOWN.findall(shown)
    assert pairs
    assert all(expected != actual for expected, actual in pairs)


OF_THE_REFERENCE = [mutant for mutant in MUTANTS.values() if mutant.of is reference]


@pytest.mark.parametrize("mutant", OF_THE_REFERENCE, ids=lambda mutant: mutant.name)
def test_a_mutant_is_made_of_the_reference_only_where_stock_has_the_fault(
    mutant: Mutant, session: Session, case: Callable[[str], Case]
) -> None:
    result = judge(case(mutant.case), session)

    assert mutant.clause in {divergence.clause for divergence in result.divergences}


@pytest.mark.slow
def test_an_honest_copy_raises_no_alarm(bench: Bench) -> None:
    alarms = [alarm for each in CASES if (alarm := bench.false_alarm(each)) is not None]

    assert not alarms, "\n".join(line for result in alarms for line in explanation(result))


def test_a_false_alarm_is_explained(
    bench: Bench, case: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selftest_module, "honest", MUTANTS["one_ulp_off"].loader)

    alarm = bench.false_alarm(case("res/single"))

    assert bench.false_alarm(case("res/no-folder")) is None
    assert alarm is not None
    assert "one element" not in explanation(alarm)
    assert any("1 of 32 elements" in line for line in explanation(alarm))


def test_a_mutant_without_its_fault_survives(bench: Bench) -> None:
    trial = bench.try_mutant(Mutant("harmless", "TIE-1", "tie/embedding-only", "None.", honest))

    assert not trial.killed
    assert (trial.catching, trial.cases) == (0, MOST_CASES)


def test_a_known_deviation_of_stock_kills_no_mutant_made_of_stock(bench: Bench) -> None:
    harmless = Mutant("harmless", "IDX-2", "idx/stray-duplicate-of-2", "None.", stock)

    assert not bench.try_mutant(harmless).killed
    assert bench.try_mutant(replace(harmless, of=reference)).killed


def test_of_a_clause_with_many_cases_the_mutants_own_comes_first(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    monkeypatch.setattr(bench, "_verdict", lambda case, _: tried.append(case.id) or case)
    monkeypatch.setattr(selftest_module, "caught_by", lambda *given: ())

    trial = bench.try_mutant(MUTANTS["default_dtype_left_by_a_failure"])

    assert tried[0] == "mis/wrong-shape"
    assert len(set(tried)) == len(tried) == trial.cases == MOST_CASES


# --- how a fault is planted ---


def test_a_fault_is_in_what_goes_in_in_what_comes_out_or_around() -> None:
    seen: list[str] = []

    def loader(model_class: Any, source: Any, **options: Any) -> Any:
        seen.append(f"loads {options}")
        return "model", {"missing_keys": set()}

    def go_in(load: Load) -> None:
        """In."""
        load.options["variant"] = "fp16"

    def come_out(load: Load) -> None:
        """Out."""
        seen.append(f"has {load.model}")
        load.result = load.info

    def go_around(load: Load) -> Any:
        """Around."""
        seen.append("before")
        yield
        seen.append("after")

    made = coming_out("MAP-1", "res/single", of=loader)(come_out)
    assert made.loader(None, "folder", strict=False) == {"missing_keys": set()}
    assert seen == ["loads {'strict': False}", "has model"]
    assert (made.name, made.fault, made.of) == ("come_out", "Out.", loader)
    assert going_in("MAP-1", "res/single")(go_in).fault == "In."
    assert around("MAP-1", "res/single")(go_around).fault == "Around."
    assert ignoring("variant", "RES-7", "res/variant").name == "variant_ignored"


def test_what_an_option_was_is_not_changed_for_the_caller(case: Callable[[str], Case]) -> None:
    options = {"variant": "fp16"}
    source = str(case("res/variant").source())

    with pytest.raises(OSError, match=r"model\.safetensors"):
        MUTANTS["variant_ignored"].loader(case("res/variant").model_class(), source, **options)

    assert options == {"variant": "fp16"}


# --- the report ---


@pytest.fixture
def small_selftest(monkeypatch: pytest.MonkeyPatch, session: Session) -> None:
    """A selftest of one mutant; no false alarms, the honest copy having been judged above."""
    monkeypatch.setattr(selftest_module, "open_session", lambda name: session)
    monkeypatch.setattr(selftest_module, "MUTANTS", {"lost_tie": MUTANTS["lost_tie"]})
    monkeypatch.setattr(selftest_module, "CASES", [])
    monkeypatch.setattr(selftest_module, "select", lambda _, ids, cited: select_from(cited))
    monkeypatch.setattr(selftest_module.torch, "set_num_threads", lambda count: None)


def select_from(cited: list[str]) -> list[Case]:
    return [case for case in CASES if set(cited) & set(case.clauses)]


@pytest.mark.usefixtures("small_selftest")
def test_selftest_shows_each_mutant_with_what_caught_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert selftest() == 0

    shown = capsys.readouterr().out
    assert re.search(rf"lost_tie +TIE-1 +killed +{MOST_CASES} of {MOST_CASES} ", shown)
    assert "1 mutants, 0 survive; an honest copy raises 0 false alarms" in shown


@pytest.mark.slow
def test_processes_beside_it_show_the_same() -> None:
    command = [sys.executable, "-m", "conformance", "selftest", "--clause", "TIE-6", "-j"]
    one, two = (
        subprocess.run([*command, jobs], capture_output=True, text=True, check=False)
        for jobs in ("1", "2")
    )

    assert one.returncode == two.returncode == 0
    assert one.stdout == two.stdout
    assert ", 0 survive; an honest copy raises 0 false alarms in " in two.stdout


@pytest.mark.usefixtures("small_selftest")
def test_selftest_fails_if_a_mutant_survives(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], session: Session
) -> None:
    survivor = Mutant("survivor", "TIE-3", "tie/equal", "None.", session.loader)
    monkeypatch.setattr(selftest_module, "MUTANTS", {"survivor": survivor})

    assert selftest() == 1

    shown = capsys.readouterr().out
    assert "survivor survives. rerun: conformance check --case tie/equal --loader" in shown


@pytest.mark.usefixtures("small_selftest")
def test_selftest_fails_on_a_false_alarm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: Callable[[str], Case]
) -> None:
    monkeypatch.setattr(selftest_module, "CASES", [case("res/single")])
    monkeypatch.setattr(selftest_module, "honest", MUTANTS["left_in_train_mode"].loader)

    assert selftest() == 1

    shown = capsys.readouterr().out
    alarm = "false alarm on an honest copy of stock:\nres/single: diverge, wrong-model\n"
    assert f"{alarm}  OUT-4 (must): " in shown
    assert "  rerun: conformance check --case res/single" in shown


@pytest.mark.usefixtures("small_selftest")
def test_selftest_tries_the_mutants_of_the_chosen_clauses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And judges the honest copy in the cases of these clauses only."""
    both = {name: MUTANTS[name] for name in ("lost_tie", "one_ulp_off")}
    monkeypatch.setattr(selftest_module, "MUTANTS", both)
    monkeypatch.setattr(selftest_module, "CASES", [c for c in CASES if c.id.startswith("res/")])
    in_these = [case for case in CASES if "TIE-1" in case.clauses and case.id.startswith("res/")]

    assert selftest(["TIE-1"]) == 0

    shown = capsys.readouterr().out
    assert "lost_tie" in shown and "one_ulp_off" not in shown
    assert (
        f"\n1 mutants, 0 survive; an honest copy raises 0 false alarms in {len(in_these)} cases"
        in shown
    )


def test_a_stage_is_its_clauses(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr(selftest_module, "selftest", lambda chosen, _: given.append(chosen) or 0)

    for words in ([], ["--stage", "MEM"], ["--clause", "TIE-1", "--stage", "out"]):
        assert main(["selftest", *words]) == 0

    everything = list(clauses())
    assert given[0] == []
    assert given[1] == [name for name in everything if name.startswith("MEM-")]
    assert given[2] == ["TIE-1", *(name for name in everything if name.startswith("OUT-"))]


@pytest.mark.parametrize("words", [["--stage", "NOPE"], ["--clause", "TIE-999"]])
def test_what_is_no_stage_or_clause_is_a_usage_error(words: list[str]) -> None:
    try:
        code = main(["selftest", *words])
    except SystemExit as ended:
        code = ended.code
    assert code == EXIT_USAGE
