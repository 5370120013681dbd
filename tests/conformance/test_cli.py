"""The command line: exit codes, what is on which stream, what is kept."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from conformance import cli
from conformance.commands.spec import as_markdown, describe
from conformance.judge.session import open_session
from conformance.mutants import MUTANTS, Mutant
from conformance.observe.loaders import reference, stock
from conformance.report import console
from conformance.results.records import read_report
from conformance.spec import clauses
from conformance_fixtures.files import read_safetensors, write_safetensors
from conformance_fixtures.hub.hub import Hub
from conformance_fixtures.write import digest, materialise

LOADER = """
from conformance.observe.loaders import stock

def loader(model_class, source, **options):
    model, info = stock(model_class, source, **options)
    model.model.norm.weight.data[0] += 1
    return model, info
"""
ESCAPE = "\x1b[31m"


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], warm: None
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process, in a folder of its own: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def main(*arguments: object) -> tuple[int, str, str]:
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as left:
            code = int(left.code or 0)
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    return main


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], str]:
    """Put a loader on the import path; its name for `--loader`."""

    def planted(loader: Any) -> str:
        module = types.ModuleType("planted_loaders")
        module.loader = loader  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "planted_loaders", module)
        return "planted_loaders:loader"

    return planted


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of a good checkpoint, to be spoiled."""
    return Path(shutil.copytree(materialise("llama-f32"), tmp_path / "mine"))


def process(*arguments: object, path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "conformance", *map(str, arguments)],
        check=False,
        cwd=path,
        env=os.environ | {"PYTHONPATH": str(path)} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def loading_as(outcomes: dict[str, str]) -> Any:
    """A loader whose verdict on a fixture depends on its folder's name: fine, wrong or nonsense."""

    def loader(model_class: Any, source: str, **options: Any) -> Any:
        name = Path(source).parent.name
        outcome = next((o for start, o in outcomes.items() if name.startswith(start)), "fine")
        result = stock(model_class, source, **options)
        if outcome == "wrong":
            result[0].train()
        return None if outcome == "nonsense" else result

    return loader


# --- check ---


def test_a_run_that_agrees_shows_its_table_and_nothing_else(run: Run, tmp_path: Path) -> None:
    code, out, err = run("check", "--case", "tie/equal", "--out", tmp_path / "kept")

    assert code == 0
    assert err == ""
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["agree"]
    assert ["TIE", "Tied", "weights:", "TIE-3"] in rows
    assert "1 cases: 1 agree" in out.splitlines()[-1]
    assert "TIE-1" not in out
    assert {path.name for path in (tmp_path / "kept").iterdir()} >= {"report.jsonl", "junit.xml"}
    assert not (tmp_path / "runs").exists()


def test_a_known_deviation_is_shown_by_name_and_is_no_failure(run: Run) -> None:
    code, out, _ = run("check", "--case", "idx/stray-duplicate-of-2")

    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("wrong-model: ")
    assert "stray-duplicate-wins" in [line.strip() for line in lines]
    assert "1 cases: 1 known" in out
    assert lines[-1] == "1 known: 1 can give a wrong model"


def test_cases_are_chosen_by_clause_and_glob(run: Run, tmp_path: Path) -> None:
    run("check", "--clause", "TIE-3", "--clause", "TIE-4", "--case", "tie/e*al", "--out", tmp_path)

    chosen = [r["case"] for r in read_report(tmp_path / "report.jsonl") if r["record"] == "result"]
    assert chosen == ["tie/equal"]


@pytest.fixture
def judged_mixed(run: Run, plant: Callable[[Any], str], tmp_path: Path) -> tuple[int, Path]:
    """A run with one result that agrees and two that diverge, one by returning no model."""
    loader = plant(loading_as({"llama-tied-equal": "wrong", "llama-tied-separate": "nonsense"}))
    patterns = [
        word for case in ("equal", "different", "neither") for word in ("--case", f"tie/{case}")
    ]
    code, _, _ = run("check", *patterns, "--loader", loader, "--out", tmp_path / "mixed")
    return code, tmp_path / "mixed"


def test_report_and_junit_tell_the_same(judged_mixed: tuple[int, Path]) -> None:
    code, folder = judged_mixed
    records = read_report(folder / "report.jsonl")
    suite = ElementTree.parse(folder / "junit.xml").getroot()

    results = [record for record in records if record["record"] == "result"]
    count = Counter(record["status"] for record in results)
    assert count == {"agree": 1, "diverge": 2}
    assert records[-1]["summary"] == dict(count)
    assert records[-1]["exit_code"] == code == 1
    assert [case.get("name") for case in suite] == [record["case"] for record in results]
    told = {name: int(suite.get(name, "")) for name in ("tests", "failures", "errors", "skipped")}
    assert told == {"tests": 3, "failures": 2, "errors": 0, "skipped": 0}
    assert len(suite.findall("*/failure")) == 2
    assert len(suite.findall("*/error")) == 0
    failure = suite.find("*/failure")
    assert failure is not None
    assert failure.get("message") == "OUT-4"
    assert "rerun: conformance check --case tie/equal" in (failure.text or "")
    assert records[0]["loader"] == "planted_loaders:loader"


# One that gives a wrong model, one unsafe, one whose message lacks a name.
SEVERAL = ("idx/stray-duplicate-of-2", "idx/leads-outside", "idx/not-json-of-7")
IMPACTS_SHOWN = [word for case in SEVERAL for word in ("--case", case)]


@pytest.mark.parametrize("columns", ["80", "110", None])
def test_no_id_of_a_deviation_is_cut_or_shown_twice_in_a_row(
    run: Run, monkeypatch: pytest.MonkeyPatch, columns: str | None
) -> None:
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    _, out, _ = run("check", *IMPACTS_SHOWN)

    tables = out.partition("\nReasons and")[0].splitlines()
    assert max(map(len, tables)) == int(columns or 110)
    told = [line.strip() for line in tables]
    for name, rows in (("stray-duplicate-wins", 2), ("index-not-named", 1)):
        assert told.count(name) == rows  # the first is shown for IDX-2 and for OUT-1


def test_the_gravest_impact_comes_first_and_one_can_be_selected(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("check", *IMPACTS_SHOWN, "--out", tmp_path / "all")
    heads = re.findall(r"^(wrong-model|unsafe|report): ", out, re.MULTILINE)
    assert (code, heads) == (0, ["wrong-model", "unsafe", "report"])

    code, out, _ = run("check", *IMPACTS_SHOWN, "--impact", "unsafe", "--out", tmp_path / "one")
    records = read_report(tmp_path / "one" / "report.jsonl")
    assert code == 0
    assert [each["case"] for each in records if each["record"] == "result"] == ["idx/leads-outside"]
    assert records[0]["impacts"] == ["unsafe"]
    assert out.splitlines()[-1] == "1 known: 1 unsafe"
    judged = sum(each["record"] == "result" for each in read_report(tmp_path / "all/report.jsonl"))
    assert f"1 cases: 1 known of {judged} judged" in out


def test_the_exit_code_is_that_of_the_impact_selected(run: Run) -> None:
    lost_tie = ("--case", "tie/equal", "--loader", "conformance.mutants:lost_tie")
    assert run("check", *lost_tie)[0] == 1
    assert run("check", *lost_tie, "--impact", "wrong-model")[0] == 1
    assert run("check", *lost_tie, "--impact", "report")[0] == 0


def test_a_known_deviation_passes_in_junit_and_says_so(run: Run, tmp_path: Path) -> None:
    run("check", "--case", "idx/stray-duplicate-of-2", "--out", tmp_path)

    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("1", "0")
    assert "stray-duplicate-wins" in (suite.findtext("*/system-out") or "")


def test_every_run_is_kept_and_the_latest_is_at_hand(run: Run, tmp_path: Path) -> None:
    for _ in range(2):  # within the same second, as likely as not
        run("check", "--case", "tie/equal")

    runs = sorted(path.name for path in (tmp_path / "runs").iterdir() if path.name != "latest")
    assert len(runs) == 2
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-current(-\d+)?", name) for name in runs)
    latest = tmp_path / "runs" / "latest"
    assert latest.is_symlink()
    assert latest.resolve().name == runs[-1]
    assert read_report(latest / "report.jsonl")[-1]["exit_code"] == 0


def test_the_reference_agrees_with_itself(run: Run) -> None:
    code, out, _ = run("check", "--case", "tie/*", "--loader", "reference")

    assert code == 0
    assert "agree" in out
    assert "known" not in out


# One mutant a stage; tests/conformance/test_mutants.py has the others.
BY_STAGE = {
    mutant.clause.partition("-")[0]: mutant
    for mutant in MUTANTS.values()
    if mutant.of is stock and not mutant.ends
}


@pytest.mark.parametrize("mutant", BY_STAGE.values(), ids=lambda mutant: mutant.name)
def test_a_mutant_is_exit_1_and_explained_and_the_rerun_line_shows_it_again(
    run: Run, mutant: Mutant
) -> None:
    name = f"conformance.mutants:{mutant.name}"
    code, out, err = run("check", "--case", mutant.case, "--loader", name)

    assert (code, err) == (1, "")
    assert re.search(
        rf"  {mutant.clause} \((must|should|observed)\): .+\n"
        r"    [a-z_-]+ of .+\n      expected  .*\n      actual    .*\n",
        out,
    )
    (line,) = re.findall(r"^  rerun: conformance (.+)$", out, re.MULTILINE)
    assert shlex.split(line) == ["check", "--case", mutant.case, "--loader", name]
    again, shown, _ = run(*shlex.split(line))
    assert again == 1
    assert f"\n  {mutant.clause} (" in shown


def test_a_failure_names_clause_key_expected_and_actual(run: Run) -> None:
    code, out, _ = run("check", "--case", "tie/equal", "--loader", "conformance.mutants:lost_tie")

    assert code == 1
    assert f"TIE-3 (must): {clauses()['TIE-3'].statement}" in out
    assert re.search(
        r"tie of lm_head\.weight\n +expected  the embedding\n +actual    its own\n", out
    )
    assert (
        "  rerun: conformance check --case tie/equal --loader conformance.mutants:lost_tie" in out
    )
    assert "1 diverge" in out


def test_more_divergences_than_fit_are_counted(run: Run) -> None:
    _, out, _ = run(
        "check", "--case", "tie/equal", "--loader", "conformance.mutants:left_in_train_mode"
    )

    assert re.search(r"and \d+ more", out)


def test_a_loader_of_ones_own_from_the_shell(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mymodule.py").write_text(LOADER, "utf-8")

    done = process(
        "check", "--case", "out/f32-3", "--loader", "mymodule:loader", "--out", "a", path=tmp_path
    )

    assert done.returncode == 1
    assert done.stderr == "", "nobody asked for progress: this is no terminal"
    for wanted in (
        "OUT-1 (must): ",
        "MAP-1 (must): ",
        "values of model.norm.weight",
        "expected  ",
        "actual    ",
        "1 of 32 elements; at most 1 absolute, at [0]:",
        "the first module whose output differs: model.norm",
        "1 cases: 1 diverge",
    ):
        assert wanted in done.stdout
    assert "\x1b" not in done.stdout

    (line,) = re.findall(r"rerun: (conformance check .*)", done.stdout)
    monkeypatch.syspath_prepend(tmp_path)
    again, _, _ = run(*shlex.split(line)[1:], "--out", tmp_path / "b")
    assert again == 1
    first, second = (
        [r for r in read_report(tmp_path / name / "report.jsonl") if r["record"] == "result"]
        for name in ("a", "b")
    )
    assert [r["case"] for r in first] == [r["case"] for r in second] == ["out/f32-3"]
    assert first[0]["divergences"] == second[0]["divergences"]


def test_progress_is_shown_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from conformance.report import console as terminal

    assert list(terminal.progress([1, 2], 2)) == [1, 2]
    assert capsys.readouterr() == ("", "")

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert list(terminal.progress([1, 2], 2)) == [1, 2]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Judging" in shown.err


# --- what is refused ---


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["chekc"],
        ["check", "--no-such-option"],
        ["check", "--case", "no/such"],
        ["check", "--case", "tie/*", "--clause", "RES-1"],
        ["check", "--clause", "TIE-99"],
        ["check", "--clause", "tie-1"],
        ["check", "--device", "abacus"],
        ["check", "--loader", "nonsense"],
        ["check", "--loader", "no.such.module:loader"],
        ["check", "--loader", "conformance.mutants:no_such"],
        ["check", "--loader", "conformance.cases.catalogue:VALID"],
        ["check", "--loader", ":x"],
        ["spec", "TIE-99"],
        ["spec", "--format", "html"],
        ["fixture", "no-such-recipe", "there"],
        ["fixture", "llama-f32", "there", "--fault", "no-such-fault"],
        ["fixture", "llama-f32", "taken"],
        ["explain"],
        ["explain", "taken", "--model", "no.such:Model"],
        ["explain", "taken", "--model", "transformers"],
    ],
    ids=shlex.join,
)
def test_what_cannot_be_meant_is_a_usage_error(
    run: Run, tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "taken").mkdir()

    code, out, err = run(*arguments)

    assert code == 64
    assert out == ""
    assert err.splitlines()[-1].startswith("conformance")
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _truncated(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def _index_not_json(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text("{", "utf-8")


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _wrong_shape(folder: Path) -> None:
    tensors, _ = read_safetensors(folder / "model.safetensors")
    tensors["model.norm.weight"] = torch.zeros(33)
    write_safetensors(folder / "model.safetensors", tensors)


def named(value: Any) -> str:
    return getattr(value, "__name__", str(value)).strip("_")


SPOILED = [
    (_no_weights, "model.safetensors"),
    (_truncated, "model.safetensors"),
    (_index_not_json, "model.safetensors.index.json"),
    (_no_config, "config.json"),
]


@pytest.mark.parametrize(("spoil", "named"), SPOILED, ids=named)
def test_a_broken_checkpoint_of_ones_own_is_no_verdict_and_no_traceback(
    run: Run, checkpoint: Path, spoil: Callable[[Path], None], named: str
) -> None:
    spoil(checkpoint)

    code, out, err = run("check", checkpoint, "--case", "*/as-saved")

    assert code == 2
    assert "Traceback" not in out + err
    assert named in out + err


def test_a_wrong_shape_of_ones_own_is_named(run: Run, checkpoint: Path) -> None:
    _wrong_shape(checkpoint)

    code, out, err = run("check", checkpoint, "--case", "*/as-saved")

    assert code == 2
    assert "model.norm.weight" in out + err


@pytest.mark.parametrize(
    ("spoil", "named"),
    [*SPOILED, (_wrong_shape, "model.norm.weight")],
    ids=named,
)
def test_explaining_a_broken_checkpoint_is_one_line(
    run: Run, checkpoint: Path, spoil: Callable[[Path], None], named: str
) -> None:
    spoil(checkpoint)

    code, out, err = run("explain", checkpoint)

    if spoil is _wrong_shape:  # the plan shows it; only loading refuses
        assert (code, err) == (0, "")
        assert named in out
    else:
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1
        assert re.match(r"conformance: [a-z-]+: ", err)
        assert named in err


def test_no_such_folder_is_one_line_from_the_shell(tmp_path: Path) -> None:
    done = process("check", "no/such/folder", path=tmp_path)

    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("conformance: source-not-found: ")
    assert "no/such/folder" in done.stderr


# --- text from a checkpoint ---


def with_key(checkpoint: Path, key: str) -> Path:
    tensors, _ = read_safetensors(checkpoint / "model.safetensors")
    write_safetensors(checkpoint / "model.safetensors", tensors | {key: torch.zeros(1)})
    return checkpoint


def forgetful(model_class: Any, source: str, **options: Any) -> Any:
    """Does not tell of unexpected keys."""
    model, info = reference(model_class, source, **options)
    return model, info | {"unexpected_keys": set()}


def raw_controls(text: str) -> set[str]:
    return set(re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f]", text))


def test_control_characters_of_a_key_reach_neither_terminal_nor_junit(
    run: Run, checkpoint: Path, plant: Callable[[Any], str], tmp_path: Path
) -> None:
    with_key(checkpoint, f"evil{ESCAPE}\x07\x9b2J\x00")

    code, out, err = run(
        *("check", checkpoint, "--case", "*/as-saved", "--loader", plant(forgetful)),
        *("--out", tmp_path / "kept"),
    )

    assert code == 1
    assert "evil\\x1b[31m" in out
    assert not raw_controls(out + err)
    text = (tmp_path / "kept" / "junit.xml").read_text("utf-8")
    assert not raw_controls(text)
    assert "evil\\x1b[31m" in text
    ElementTree.fromstring(text)
    records = read_report(tmp_path / "kept" / "report.jsonl")
    assert records[1]["divergences"][0]["expected"] == [f"evil{ESCAPE}\x07\x9b2J\x00"]


def angry(model_class: Any, source: str, **options: Any) -> Any:
    """Repeats in its error what is in the checkpoint."""
    raise ValueError(f"evil{ESCAPE}\x07\x9b2J\x00")


def meddling(model_class: Any, source: str, **options: Any) -> Any:
    """Makes up a field of the config, whose name is the place of the divergence."""
    model, info = reference(model_class, source, **options)
    setattr(model.config, f"evil{ESCAPE}\x07\x9b2J\x00", 1)
    return model, info


@pytest.mark.parametrize("loader", [angry, meddling])
def test_control_characters_of_messages_and_places_are_made_plain(
    run: Run, plant: Callable[[Any], str], tmp_path: Path, loader: Any
) -> None:
    code, out, err = run("check", "--case", "tie/equal", "--loader", plant(loader), "--out", "kept")

    assert code == 1
    assert "evil\\x1b[31m\\x07\\x9b2J\\x00" in out
    assert not raw_controls(out + err)
    text = (tmp_path / "kept" / "junit.xml").read_text("utf-8")
    assert "evil\\x1b[31m\\x07\\x9b2J\\x00" in text
    ElementTree.fromstring(text)


def test_a_key_is_not_taken_for_markup(
    run: Run, checkpoint: Path, plant: Callable[[Any], str]
) -> None:
    with_key(checkpoint, "[bold]evil[/nonsense]")

    code, out, _ = run("check", checkpoint, "--case", "*/as-saved", "--loader", plant(forgetful))

    assert code == 1
    assert "[bold]evil[/nonsense]" in out


def test_control_characters_do_not_leave_by_a_plan(run: Run, checkpoint: Path) -> None:
    code, out, err = run("explain", with_key(checkpoint, f"evil{ESCAPE}"))

    assert code == 0
    assert "evil" in out
    assert not raw_controls(out + err)


def test_control_characters_do_not_leave_by_an_error(run: Run, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": {"a": f"evil{ESCAPE}.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")

    code, out, err = run("explain", checkpoint)

    assert code == 2
    assert "evil" in err
    assert not raw_controls(out + err)


def test_control_characters_do_not_leave_by_a_skipped_case(run: Run, checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    config["architectures"] = [f"Evil{ESCAPE}"]
    (checkpoint / "config.json").write_text(json.dumps(config), "utf-8")

    _, out, err = run("check", checkpoint, "--case", "*/as-saved")

    assert "Evil" in out
    assert not raw_controls(out + err)


def test_a_folder_whose_name_is_a_glob_can_be_rerun(
    run: Run, checkpoint: Path, tmp_path: Path, plant: Callable[[Any], str]
) -> None:
    odd = checkpoint.rename(tmp_path / "mine[1]")
    _, out, _ = run("check", odd, "--loader", plant(loading_as({"": "wrong"})), "--out", "a")
    lines = re.findall(r"rerun: conformance (check .*as-saved.*)", out)
    assert len(lines) == 1

    code, _, err = run(*shlex.split(lines[0]), "--out", "b")

    assert code == 1, err
    results = [r for r in read_report(Path("b/report.jsonl")) if r["record"] == "result"]
    assert [r["case"] for r in results] == ["own/mine[1]/as-saved"]


def test_two_folders_of_one_name_are_told_apart(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(checkpoint, tmp_path / "elsewhere" / "mine"))

    run("check", checkpoint, other, "--case", "*/as-saved", "--out", tmp_path / "kept")

    results = read_report(tmp_path / "kept" / "report.jsonl")[1:-1]
    assert len(results) == 2
    assert len({r["case"] for r in results}) == 2


def test_a_loader_that_returns_no_model_is_reported_and_the_run_goes_on(
    judged_mixed: tuple[int, Path],
) -> None:
    _, folder = judged_mixed
    results = {r["case"]: r for r in read_report(folder / "report.jsonl")[1:-1]}

    (found,) = results["tie/different"]["divergences"]
    assert (found["kind"], found["clause"]) == ("no-model", "STA-18")
    assert "no module" in found["actual"]
    assert results["tie/neither"]["status"] == "agree"


@pytest.mark.parametrize("left", [None, "a model", (None, None)], ids=repr)
def test_a_loader_that_always_returns_no_model_is_no_traceback(
    plant: Callable[[Any], str], left: Any
) -> None:
    name = plant(lambda model_class, source, **options: left)

    assert open_session(name).loader_name == name


def test_nonsense_for_loading_info_diverges(run: Run, plant: Callable[[Any], str]) -> None:
    def loader(model_class: Any, source: str, **options: Any) -> Any:
        return stock(model_class, source, **options)[0], ["missing"]

    assert run("check", "--case", "tie/equal", "--loader", plant(loader))[0] == 1


@pytest.mark.parametrize(
    "arguments",
    [["check", "--case", "tie/equal", "--out", "file"], ["spec", "--out", "no/such/folder/x"]],
    ids=shlex.join,
)
def test_an_out_that_cannot_be_written_is_no_traceback(
    run: Run, tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "file").touch()

    assert run(*arguments)[0] in (2, 64)


# --- the other commands ---


def test_spec_lists_every_clause(run: Run) -> None:
    code, out, err = run("spec")

    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == list(clauses())


def test_spec_shows_one_clause(run: Run) -> None:
    code, out, _ = run("spec", "MAP-7")

    assert code == 0
    for wanted in (clauses()["MAP-7"].statement, clauses()["MAP-7"].source, "map/nothing-matches"):
        assert wanted in out
    assert "MAP-6" not in out


@pytest.mark.parametrize("word", ["map-7", "MAP", "stray-duplicate-wins"])
def test_spec_knows_any_case_of_letters_stages_and_deviations(run: Run, word: str) -> None:
    code, out, err = run("spec", word)

    assert (code, err) == (0, "")
    assert out == describe(word) + "\n"


def test_spec_names_what_is_near_an_unknown_word(run: Run) -> None:
    code, out, err = run("spec", "stray-duplicate-win")

    assert (code, out) == (64, "")
    assert "stray-duplicate-wins" in err


def test_spec_renders_the_page(run: Run, tmp_path: Path) -> None:
    _, out, _ = run("spec", "--format", "markdown")
    code, silent, _ = run("spec", "--format", "markdown", "--out", tmp_path / "spec.md")

    assert (code, silent) == (0, "")
    assert out == (tmp_path / "spec.md").read_text("utf-8") == as_markdown()


def test_explain_shows_the_plan_and_reads_no_weight(run: Run, checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    data = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    data[header:] = b"\xff" * (len(data) - header)  # NaN everywhere, were it read
    path.write_bytes(data)

    code, out, err = run("explain", checkpoint)

    assert (code, err) == (0, "")
    for wanted in ("LlamaForCausalLM", "model.safetensors", "30 tensors", "float32", "cpu"):
        assert wanted in out


def test_explain_as_json_has_what_the_options_decide(run: Run) -> None:
    code, out, _ = run(
        *("explain", materialise("llama-f32-2"), "--format", "json", "--dtype", "bfloat16"),
        *("--model", "transformers:LlamaForSequenceClassification"),
    )

    assert code == 0
    decided = json.loads(out)
    assert "LlamaForSequenceClassification" in decided["model_class"]
    assert "bfloat16" in decided["dtype"]
    assert decided["missing"] == ["score.weight"]
    assert decided["unexpected"] == ["lm_head.weight"]
    assert len(decided["files"]) == 2


def test_fixture_writes_a_checkpoint_with_its_faults(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("fixture", "llama-f32-2", "played", "--fault", "absent-shard")

    assert (code, out) == (0, "played\n")
    assert digest(tmp_path / "played") == digest(materialise("llama-f32-2", ("absent-shard",)))


def test_selftest_is_a_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from conformance.commands import selftest

    monkeypatch.setattr(selftest, "selftest", lambda chosen, jobs: jobs == 3)

    assert run("selftest", "-j", "3")[0] == 1


def test_help_is_no_error(run: Run) -> None:
    code, out, err = run("check", "--help")

    assert (code, err) == (0, "")
    assert "--loader" in out


# By the id of a repository on the Hub.


def test_explain_takes_an_id_and_a_revision(run: Run, world: Hub) -> None:
    world.publish("org/tiny", materialise("llama-f32-2"), tag="v1")
    world.publish("org/tiny", materialise("llama-f16"))

    _, newest, err = run("explain", "org/tiny")
    _, tagged, _ = run("explain", "org/tiny", "--revision", "v1")

    assert err == ""
    assert "float16" in newest
    assert "model.safetensors.index.json" in tagged
    assert "float32" in tagged


def test_check_takes_an_id_and_names_its_cases_after_it(
    run: Run, world: Hub, tmp_path: Path
) -> None:
    world.publish("org/tiny", materialise("llama-f32"))

    arguments = ("--case", "*/as-saved", "--loader", "reference", "--out", tmp_path / "report")
    code, out, err = run("check", "org/tiny", *arguments)

    assert (code, err) == (0, ""), out
    (result,) = read_report(tmp_path / "report" / "report.jsonl")[1:-1]
    assert (result["case"], result["status"]) == ("own/tiny/as-saved", "agree")
    assert world.asked("/cdn/*"), "it is of this Hub"


@pytest.mark.parametrize("command", ["check", "explain"])
def test_an_id_that_is_none_is_exit_2_and_one_line(run: Run, world: Hub, command: str) -> None:
    code, out, err = run(command, "org/none")

    assert (code, out) == (2, "")
    assert err.startswith("conformance: source-not-found: ")
    assert "'org/none'" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["check", "explain"])
def test_a_path_is_no_question_to_the_hub(run: Run, world: Hub, command: str) -> None:
    code, _, err = run(command, "./none")

    assert code == 2
    assert "source-not-found" in err
    assert not world.requests


def test_a_case_of_the_hub_runs_again_by_its_id(run: Run, tmp_path: Path) -> None:
    arguments = ("--loader", "conformance.mutants:one_ulp_off", "--out", tmp_path / "report")
    run("check", "--case", "res/hub-single", *arguments)
    (result,) = read_report(tmp_path / "report" / "report.jsonl")[1:-1]

    code, out, _ = run(*shlex.split(result["rerun"])[1:])

    assert code == 1
    assert "RES-14" in out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--help"], 0, "exit codes:"),
        (["--version"], 0, "from-pretrained-conformance"),
        (["compare", "--help"], 0, "--fail-on"),
        (["spec", "tie-1"], 0, "TIE-1: "),
        (["spec", "TIE"], 0, "TIE-2"),
        ([], 64, "a COMMAND is missing"),
        (["chekc"], 64, "there is no command 'chekc'; did you mean check?"),
        (["compare", "4.57.6", "5.0.0", "--fail-onn", "x"], 64, "did you mean --fail-on"),
        (["compare", "a", "b", "--fail-on", "x"], 64, "'x' is none of"),
        (["bisect", "tie/equal"], 64, "--good"),
        (["check", "-j", "0"], 64, "'0' is not a number of 1 or more"),
        (["check", "--loader", "a:b", "-j", "-2"], 64, "'-2' is not a number of 1 or more"),
        (["compare", "a", "b", "-j", "two"], 64, "'two' is not a number of 1 or more"),
    ],
)
def test_help_and_errors_of_usage_import_no_torch(words: list[str], code: int, said: str) -> None:
    """Which is what makes them quick: torch takes two seconds to import."""
    script = f"""
import sys
import threading
import time
from conformance.cli import main
try:
    code = main({words!r})
except SystemExit as left:
    code = left.code or 0
slow = {{"torch", "transformers", "numpy"}} & sys.modules.keys()
print("loaded", sorted(slow), "exit", code)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == f"loaded [] exit {code}"
    assert said in done.stdout + done.stderr


def test_a_log_gets_a_line_where_work_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "SILENCE", 0.05)

    def slow() -> Iterator[int]:
        for number in range(3):
            time.sleep(0.1)
            yield number

    assert list(console.progress(slow(), 3)) == [0, 1, 2]
    assert "judged 1 of 3\n" in capsys.readouterr().err

    with console.watching() as progress:
        advance = progress.task("5.0.0", 2)
        advance("own/llama/auto")
        time.sleep(0.2)
    assert "5.0.0: 0 of 2, own/llama/auto\n" in capsys.readouterr().err
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]
