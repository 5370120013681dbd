"""`conformance compare` on a checkpoint that each target saves for the others to load."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from conformance.cli import main
from conformance.results.records import read_report
from conformance_fixtures.write import materialise
from tests.conformance.commands.test_compare import spoiled  # noqa: F401  a fixture

# The model is right after the load; what it saves has a head of zeros.
SPOILED_SAVE = (
    "kept_save = model.save_pretrained; "
    "model.save_pretrained = lambda folder, **options: kept_save(folder, state_dict={"
    "n: t * 0 if n == 'lm_head.weight' else t for n, t in model.state_dict().items()}, **options)"
)


@pytest.fixture
def checkpoint_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    shutil.copytree(materialise("llama-f32"), folder)
    return folder


def saved_by(out: Path, *words: str) -> dict[tuple[str, str], dict[str, Any]]:
    main(["compare", *words, "--case", "own/mine/saved-by-*", "--out", str(out)])
    records = [each for each in read_report(out / "report.jsonl") if each["record"] == "result"]
    return {(each["case"].rpartition("/")[2], each["target"]): each for each in records}


def test_what_one_saves_the_other_loads(
    checkpoint_folder: Path,
    spoiled: Any,  # noqa: F811
    tmp_path: Path,
) -> None:
    target = spoiled(SPOILED_SAVE)
    found = saved_by(tmp_path / "out", "current", target, str(checkpoint_folder))

    by_spoiled = next(case for case, _ in found if case != "saved-by-current")
    assert {key: each["status"] for key, each in found.items()} == {
        ("saved-by-current", "current"): "agree",
        ("saved-by-current", target): "agree",
        (by_spoiled, "current"): "diverge",
        (by_spoiled, target): "diverge",
    }
    (values,) = (
        each for each in found[by_spoiled, "current"]["divergences"] if each["kind"] == "values"
    )
    assert values["where"] == "lm_head.weight"


@pytest.mark.slow
def test_what_cannot_be_saved_has_no_verdict(
    checkpoint_folder: Path,
    spoiled: Any,  # noqa: F811
    tmp_path: Path,
) -> None:
    target = spoiled("model.save_pretrained = None")
    found = saved_by(tmp_path / "out", f"python:{sys.executable}", target, str(checkpoint_folder))

    told = {each["reason"] for each in found.values() if each["status"] == "error"}
    assert len(told) == 1
    assert "does not load and save it: TypeError" in told.pop()
