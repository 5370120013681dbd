"""The sweep of the pinned ring, the CPU's memory in the GPU's place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from conformance.bench import ring
from conformance.bench.ring import Weights, main, sweep
from conformance.bench.ring_sweep import Setting, Sweep
from conformance.bench.ring_table import show
from conformance_fixtures.write import materialise
from reference_loader.fill.copies import Copy

CPU = torch.device("cpu")
SMALL = ["--device", "cpu", "--lanes", "1,3", "--slots", "2", "--chunks", "1,4", "--rounds", "2"]


def test_every_setting_and_limit_is_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = materialise("llama-bf16-2")
    assert main([str(folder), *SMALL, "--out", str(tmp_path)]) == 0
    kept = json.loads((tmp_path / "ring.json").read_text())
    assert [(r["lanes"], r["slots"], r["size"]) for r in kept["rings"]] == [
        (lanes, 2, chunk * 2**20) for lanes in (1, 3) for chunk in (1, 4)
    ]
    assert {len(r["seconds"]) for r in kept["rings"]} == {2}
    assert list(kept["limits"]) == ["read on all cores"]
    assert kept["machine"]["gpu"] is None or torch.cuda.is_available()
    assert "best: " in capsys.readouterr().out


def test_the_best_is_held_against_the_lowest_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Medians: one slow round of the best is no matter."""
    fast, slow = Setting(8, 2, 2**23), Setting(1, 2, 2**20)
    seconds = {slow: [2.0, 2.0, 2.0], fast: [1.0, 9.0, 1.0]}
    found = Sweep(10**9, seconds, {"read": [0.2], "pinned": [0.8, 0.8]})
    assert found.best == fast
    assert found.limit == 1.25e9
    show(found, tmp_path)
    shown = capsys.readouterr().out
    assert "best: 8 threads × 2 slots × 8 MiB, 80% of the lowest limit" in shown
    assert [line.split() for line in shown.splitlines()[1:3]] == [
        ["1", "×", "2", "0.50"],
        ["8", "×", "2", "1.00"],
    ]


def test_other_values_than_the_files_hold_are_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_: Any, piece: Copy) -> None:
        piece.destination.zero_()

    monkeypatch.setattr(ring.Lane, "carry", lost)
    assert main([str(materialise("llama-bf16-2")), *SMALL, "--out", str(tmp_path)]) == 1


def test_a_cast_is_swept_too_and_a_cold_cache() -> None:
    weights = Weights(materialise("llama-bf16-2"), CPU, torch.float32)
    asked: list[str] = []
    found = sweep(weights, [Setting(2, 2, 2**20)], 1, True, asked.append)
    assert weights.right()
    assert found.size == weights.stored
    assert asked == ["round 0/1"] * 2 + ["round 1/1"] * 2


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main([]) == 2
    assert "--device cpu" in capsys.readouterr().err
