"""Two nights' figures: what counts as a regression, and what is no comparison at all."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance.bench.against import changes, elsewhere, main, table

MB = 10**6


def sample(seconds: float) -> dict[str, Any]:
    return {"first": seconds, "again": [seconds, seconds * 3, seconds], "touched": seconds}


def case(name: str, clock: str, *seconds: float) -> dict[str, Any]:
    row = {
        "samples": [sample(each) for each in seconds],
        "memory": {
            "peaks": {"anonymous": 90 * MB, "file": 500 * MB, "total": 600 * MB},
            "gpu": {"allocated": 1000 * MB, "reserved": 1100 * MB, "taken": 1200 * MB},
        },
    }
    return {
        "case": {"id": name, "clock": clock},
        "rows": {"stock": copy.deepcopy(row), "reference": row},
    }


@pytest.fixture
def night() -> dict[str, Any]:
    return {
        "machine": {"torch": "2.13.0", "cores": 16},
        "cases": [case("cuda-same", "first", 1.0, 1.1, 0.9), case("tiny", "again", 0.004)],
        "bounds": [{"what": "same dtype", "case": "cuda-same", "kept": True}],
    }


def row(record: Any, number: int = 0) -> Any:
    return record["cases"][number]["rows"]["reference"]


def spoil(what: str) -> Callable[[Any], None]:
    def change(record: Any) -> None:
        match what:
            case "nothing":
                pass
            case "ten percent":
                row(record)["samples"] = [sample(1.0 * 1.099)]
            case "slower":
                row(record)["samples"] = [sample(1.11), sample(0.1), sample(1.12)]
            case "tiny, by a few milliseconds":
                row(record, 1)["samples"] = [sample(0.012)]
            case "stock slower":
                record["cases"][0]["rows"]["stock"]["samples"] = [sample(9.0)]
            case "host peak":
                row(record)["memory"]["peaks"]["anonymous"] += 20 * MB
            case "host peak, a little":
                row(record)["memory"]["peaks"]["anonymous"] += 5 * MB
            case "GPU peak":
                row(record)["memory"]["gpu"]["allocated"] += 60 * MB
            case "not measured":
                row(record)["samples"] = []
            case "a case less":
                del record["cases"][1]
            case "bound lost":
                record["bounds"][0]["kept"] = False
            case "bound not measured any more":
                record["bounds"][0]["kept"] = None

    return change


@pytest.mark.parametrize(
    ("what", "worse"),
    [
        ("nothing", []),
        ("ten percent", []),
        ("slower", ["first, s"]),
        ("tiny, by a few milliseconds", []),
        ("stock slower", []),
        ("host peak", ["peak anonymous, bytes"]),
        ("host peak, a little", []),
        ("GPU peak", ["peak on the GPU, bytes"]),
        (
            "not measured",
            ["first, s", "peak anonymous, bytes", "peak total, bytes", "peak on the GPU, bytes"],
        ),
        (
            "a case less",
            ["again, s", "peak anonymous, bytes", "peak total, bytes", "peak on the GPU, bytes"],
        ),
        ("bound lost", ["same dtype, bound"]),
        ("bound not measured any more", ["same dtype, bound"]),
    ],
)
def test_what_is_a_regression(night: Any, tmp_path: Path, what: str, worse: list[str]) -> None:
    now = copy.deepcopy(night)
    spoil(what)(now)
    found = changes(night, now)
    assert [each.what for each in found if each.word in ("worse", "gone")] == worse
    assert run(tmp_path, night, now) == bool(worse)


def run(tmp_path: Path, before: Any, now: Any) -> int:
    paths = [tmp_path / "before.json", tmp_path / "now.json"]
    for path, record in zip(paths, (before, now), strict=True):
        path.write_text(json.dumps(record), "utf-8")
    return main([str(path) for path in paths])


def test_what_became_better_or_is_new_is_said(night: Any) -> None:
    now = copy.deepcopy(night)
    row(now)["samples"] = [sample(0.5)]
    now["cases"].append(case("cuda-widen", "first", 2.0))
    words = {(each.case, each.what): each.word for each in changes(night, now)}
    assert words["cuda-same", "first, s"] == "better"
    assert words["cuda-widen", "first, s"] == "new"
    assert words["tiny", "again, s"] == "same"


def test_the_worst_comes_first(night: Any) -> None:
    now = copy.deepcopy(night)
    row(now)["samples"] = [sample(0.5)]
    row(now, 1)["memory"]["gpu"]["allocated"] *= 2
    lines = table(changes(night, now))
    assert lines[0].split() == ["case", "what", "before", "now"]
    told = [" ".join(line.split()) for line in lines]
    assert told[1] == "tiny peak on the GPU, bytes 1,000,000,000 2,000,000,000 ×2.00 worse"
    assert told[2] == "cuda-same first, s 1.0000 0.5000 ×0.50 better"


def test_another_machine_is_no_regression(
    night: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now = copy.deepcopy(night)
    now["machine"] |= {"torch": "2.14.0", "gpu": "H200"}
    row(now)["samples"] = [sample(3.0)]
    assert elsewhere(night, now) == ["torch: 2.13.0 became 2.14.0", "gpu: None became H200"]
    assert run(tmp_path, night, now) == 0
    assert "not held against each other: torch" in capsys.readouterr().out


def test_the_first_night(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "absent.json"), str(tmp_path / "now.json")]) == 0
    assert "is the first" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"machine": {}, "cases": [{}], "bounds": []}'])
def test_a_file_that_is_none(
    night: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    before, now = tmp_path / "before.json", tmp_path / "now.json"
    before.write_text(json.dumps(night), "utf-8")
    now.write_text(text, "utf-8")
    assert main([str(before), str(now)]) == 2
    assert "now.json" in capsys.readouterr().err
