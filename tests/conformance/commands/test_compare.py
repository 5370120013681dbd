"""`conformance compare` end to end: two environments, one of them with a planted fault."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from conformance.cases.catalogue import CASES
from conformance.cli import main
from conformance.judge.changes import FIXED, Change, is_common
from conformance.report.tables.change_table import headline_table, headlines
from conformance.results.records import Divergence, read_report
from conformance.spec import clauses

BY_ID = {case.id: case for case in CASES}

# Lies in the environment's site-packages and spoils transformers once that is imported.
PLANTED = """\
import importlib.abc, importlib.util, sys

class Spoiler(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "transformers.modeling_utils":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def spoiled(module):
            execute(module)
            kept = module.PreTrainedModel.from_pretrained.__func__
            def from_pretrained(cls, *args, **kwargs):
                result = kept(cls, *args, **kwargs)
                model = result[0] if isinstance(result, tuple) else result
                SPOIL
                return result
            module.PreTrainedModel.from_pretrained = classmethod(from_pretrained)
        spec.loader.exec_module = spoiled
        return spec

sys.meta_path.insert(0, Spoiler())
"""


@pytest.fixture
def spoiled(tmp_path: Path):
    """The target of an environment as this one, in which every load ends with a statement."""

    def make(statement: str) -> str:
        home = tmp_path / "spoiled"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
        library = next((home / "lib").glob("python*")) / "site-packages"
        (library / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
        (library / "planted.py").write_text(PLANTED.replace("SPOIL", statement))
        (library / "planted.pth").write_text("import planted\n")
        return f"python:{home / 'bin/python'}"

    return make


def compared(out: Path, *words: str) -> tuple[int, list[dict]]:
    code = main(["compare", *words, "--out", str(out)])
    return code, read_report(out / "report.jsonl")


def changes_of(records: list[dict]) -> dict[str, str]:
    return {each["case"]: each["change"] for each in records if each["record"] == "change"}


@pytest.mark.slow
def test_the_same_environment_twice_has_no_news(tmp_path: Path, capsys) -> None:
    words = ["current", f"python:{sys.executable}", "--case", "tie/e*", "--case", "out/f32-3"]
    code, records = compared(tmp_path / "one", *words)
    assert code == 0
    assert set(changes_of(records).values()) == {"unchanged"}
    assert records[-1]["summary"] == {"unchanged": len(changes_of(records))}
    again = compared(tmp_path / "two", *words)[1]
    verdicts = [
        [(r["case"], r["status"], r["digest"]) for r in run if r["record"] == "result"]
        for run in (records, again)
    ]
    assert verdicts[0] == verdicts[1]
    assert "no difference" in capsys.readouterr().out


def test_a_planted_fault_is_a_regression_that_can_be_accepted(
    spoiled, tmp_path: Path, capsys
) -> None:
    target = spoiled("model.lm_head.weight.requires_grad_(False)")
    words = ["current", target, "--case", "out/f32-3", "--case", "res/no-weights"]

    code, records = compared(tmp_path / "plain", *words)

    assert code == 1
    assert changes_of(records) == {"out/f32-3": "regressed", "res/no-weights": "unchanged"}
    (change,) = (each for each in records if each.get("change") == "regressed")
    assert (change["from"], change["to"]) == ("current", target)
    assert change["regressed"] == ["INI-3"]
    kept = {path.name for path in (tmp_path / "plain").iterdir()}
    assert kept == {"report.jsonl", "report.html", "junit.xml", "badge.svg"}
    told = capsys.readouterr().out
    assert "requires_grad of lm_head.weight: True → False" in told
    assert f"rerun: conformance compare current {target} --case out/f32-3" in told

    accepted = tmp_path / "accept.toml"
    accepted.write_text(
        '[[accept]]\ncase = "out/*"\nreason = "we train nothing"\n'
        '[[accept]]\ncase = "tie/*"\nreason = "long gone"\n'
    )
    code, records = compared(tmp_path / "accepted", *words, "--accept", str(accepted))
    assert code == 0
    told = capsys.readouterr().out
    assert "accepted: out/f32-3: we train nothing" in told
    assert "unused entry in the accept file: case tie/* (long gone)" in told


def test_the_comment_for_a_pull_request_is_all_that_stdout_has(
    spoiled, tmp_path: Path, capsys
) -> None:
    target = spoiled("model.lm_head.weight.requires_grad_(False)")
    accepted = tmp_path / "accept.toml"
    accepted.write_text('[[accept]]\ncase = "tie/*"\nreason = "long gone"\n')
    words = ["current", target, "--case", "out/f32-3", "--accept", str(accepted)]
    code, _ = compared(tmp_path / "out", *words, "--format", "markdown")
    told = capsys.readouterr().out
    assert code == 1
    assert told.startswith("### conformance: `current` → `python:")
    assert (
        f"| ▼ regressed | wrong-model | `INI-3` | {clauses()['INI-3'].title} "
        "| `requires_grad of lm_head.weight" in told
    )
    assert "- `unused entry in the accept file: case tie/* (long gone)`" in told
    assert told.rstrip().endswith("</details>")


@pytest.mark.slow
def test_a_crash_in_one_load_is_told_and_the_others_are_judged(
    spoiled, tmp_path: Path, capsys
) -> None:
    """The fault strikes where the config has another epsilon; the loads after it go on."""
    condition = "model.config.rms_norm_eps == 0.1"
    target = spoiled(f"__import__('os')._exit(7) if {condition} else None")
    words = ["current", target, "--case", "cfg/override", "--case", "out/f32-3"]
    code, records = compared(tmp_path / "out", *words)
    assert code == 1
    assert changes_of(records) == {"cfg/override": "regressed", "out/f32-3": "unchanged"}
    told = capsys.readouterr().out
    assert "the process ended with exit code 7" in told


@pytest.mark.slow
def test_a_checkpoint_of_ones_own_has_its_seconds_and_memory(
    spoiled, checkpoint, tmp_path: Path, capsys
) -> None:
    folder = checkpoint("llama-bf16-2")
    target = spoiled("model.float()")
    words = ["current", target, str(folder), "--case", "*/as-saved"]
    code, records = compared(tmp_path / "out", *words)
    assert code == 1
    (change,) = (each for each in records if each["record"] == "change")
    assert change["change"] == "regressed"
    assert all(seconds > 0 for seconds in change["seconds"])
    told = capsys.readouterr().out
    assert "MiB" in told
    assert "loads as float32 (was bfloat16)" in told
    assert 'pass dtype="bfloat16" to keep' in " ".join(told.split())


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["current"], 64, "two targets or more"),
        (["current", "no target"], 64, "'no target' is no target"),
        (["current", "python:/no/python"], 64, "no such program"),
        (["current", "current", "--accept", "/no/file"], 2, "/no/file"),
        (["current", "current", "--case", "no/case"], 64, "no case matches"),
    ],
)
def test_what_cannot_be_asked(words: list[str], code: int, told: str, capsys) -> None:
    assert main(["compare", *words]) == code
    assert told in capsys.readouterr().err


@pytest.mark.slow
def test_an_environment_without_our_needs_is_a_harness_error(tmp_path: Path, capsys) -> None:
    home = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    out = tmp_path / "out"
    code = main(
        ["compare", "current", f"python:{home}/bin/python", "--case=tie/equal", f"--out={out}"]
    )
    assert code == 2
    assert "No module named" in capsys.readouterr().err
    assert not (out / "report.jsonl").exists()


def headline(case: str, clause: str, kind: str = "dtype") -> Change:
    told = Divergence(kind, "lm_head.weight", "torch.float32", "torch.bfloat16", clause)
    common = case in BY_ID and is_common(BY_ID[case])
    return Change(
        *(case, (clause,), "a", "b", FIXED), fixed=(clause,), divergences=(told,), common=common
    )


def test_the_first_screen_names_what_most_users_meet() -> None:
    """What only damage, a Hub, odd classes or several options show comes further down."""
    found = headlines(
        [
            headline("tie/different", "TIE-4", "tie"),
            headline("dty/default-bf16-2", "DTY-1"),
            headline("dty/none", "DTY-1"),
            headline("fmt/truncated-single", "FMT-1"),
            headline("res/hub-private", "RES-14"),
            headline("ini/marked-weight", "INI-5"),
            headline("own/mine", "DTY-1"),
        ]
    )
    assert [(row.clause, row.cases) for row in found] == [
        ("DTY-1", ("dty/default-bf16-2", "dty/none")),
        ("TIE-4", ("tie/different",)),
    ]
    table = headline_table(found)
    assert table.row_count == 2
    screen = Console(width=80, file=StringIO())
    screen.print(table)
    assert clauses()["TIE-4"].title in screen.file.getvalue()
    assert len(screen.file.getvalue().splitlines()) == 3
