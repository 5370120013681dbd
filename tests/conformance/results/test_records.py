"""`report.jsonl` as the contract has it, and the exit codes."""

from __future__ import annotations

import io
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance.judge.session import Session, header
from conformance.results.records import (
    AGREE,
    DIVERGE,
    ERROR,
    KNOWN,
    SKIP,
    BadReport,
    Divergence,
    Recorder,
    Result,
    exit_code,
    read_report,
)
from conformance.results.runs import recording

RESULT = Result(
    case="tie/equal",
    clauses=("TIE-3",),
    input_class="valid",
    target="current",
    status=DIVERGE,
    divergences=(Divergence("tie", "lm_head.weight", "shared", "its own", "TIE-3", "why"),),
    reason="",
    digest="0123456789abcdef",
    seconds=0.25,
    rerun="conformance check --case tie/equal",
)


def with_status(status: str) -> Result:
    return Result("a/b", ("TIE-3",), "valid", "current", status)


def lines(file: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.getvalue().splitlines()]


def test_a_header_says_what_was_judged_where_and_by_what(session: Session) -> None:
    file = io.StringIO()
    Recorder(file).header(**header(session), started="2026-11-22T00:00:00Z")

    (record,) = lines(file)
    assert list(record)[:2] == ["record", "schema"]
    assert record["record"] == "header"
    assert record["schema"] == 1
    assert set(record) == {
        *("record", "schema", "target", "loader", "versions"),
        *("platform", "device", "started"),
    }
    assert set(record["versions"]) == {
        *("python", "torch", "transformers", "accelerate", "safetensors", "huggingface_hub"),
    }
    assert all(record["versions"].values())
    assert (record["target"], record["loader"], record["device"]) == ("current", "stock", "cpu")


def test_a_result_has_the_fields_of_the_contract() -> None:
    record = json.loads(json.dumps(RESULT.record()))

    assert set(record) == {
        *("record", "case", "clauses", "input_class", "target", "status", "divergences"),
        *("deviation", "reason", "digest", "seconds", "rerun", "impact", "deviations"),
    }
    assert record["record"] == "result"
    assert record["clauses"] == ["TIE-3"]
    assert record["deviation"] is None
    # `detail` is more than the contract names: the numbers that explain.
    assert record["divergences"] == [
        {
            "kind": "tie",
            "where": "lm_head.weight",
            "expected": "shared",
            "actual": "its own",
            "clause": "TIE-3",
            "detail": "why",
            "impact": "",
            "deviation": "",
            "right": "",
        }
    ]


def test_a_footer_counts_what_was_written() -> None:
    file = io.StringIO()
    recorder = Recorder(file)
    for status in (AGREE, KNOWN, AGREE):
        recorder.result(with_status(status))
    recorder.footer(0, "2026-11-22T00:00:01Z")

    assert lines(file)[-1] == {
        "record": "footer",
        "summary": {"agree": 2, "known": 1},
        "exit_code": 0,
        "finished": "2026-11-22T00:00:01Z",
    }


def test_a_result_is_on_disk_before_the_next_one(tmp_path: Path) -> None:
    with recording(tmp_path, {"target": "current"}) as recorder:
        recorder.result(RESULT)
        written = (tmp_path / "report.jsonl").read_text("utf-8").splitlines()

        assert [json.loads(line)["record"] for line in written] == ["header", "result"]


def test_a_line_is_one_line_of_ascii_whatever_a_checkpoint_says() -> None:
    file = io.StringIO()
    odd = "a\nb\u2028c\x1b[31m\ud800é"
    Recorder(file).result(
        Result(odd, (), "valid", "current", DIVERGE, (Divergence("values", odd, {odd: 1}, object),))
    )

    assert file.getvalue().isascii()
    assert file.getvalue().count("\n") == 1
    assert lines(file)[0]["case"] == odd


def report(folder: Path, *records: str) -> Path:
    path = folder / "report.jsonl"
    path.write_text("".join(f"{record}\n" for record in records), "utf-8")
    return path


HEADER = '{"record": "header", "schema": 1}'
FOOTER = '{"record": "footer", "summary": {}, "exit_code": 0, "finished": "now"}'


def test_a_whole_report_is_read_back(tmp_path: Path) -> None:
    with recording(tmp_path, {"target": "current"}) as recorder:
        recorder.result(RESULT)
        recorder.footer(1, "now")

    records = read_report(tmp_path / "report.jsonl")

    assert [record["record"] for record in records] == ["header", "result", "footer"]
    assert records[1] == json.loads(json.dumps(RESULT.record()))


@pytest.mark.parametrize(
    ("records", "complaint"),
    [
        ((HEADER,), "no footer"),
        ((HEADER, '{"record": "result"}'), "no footer"),
        ((HEADER, '{"record": "resu'), "is not a report"),
        ((FOOTER,), "no header"),
        ((), "no header"),
        (('{"record": "header", "schema": 2}', FOOTER), "schema 2"),
        (('{"record": "header"}', FOOTER), "schema None"),
    ],
)
def test_a_report_that_is_not_whole_is_told_by_name(
    tmp_path: Path, records: tuple[str, ...], complaint: str
) -> None:
    path = report(tmp_path, *records)

    with pytest.raises(BadReport, match=complaint) as caught:
        read_report(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("record", ["[1]", "7", "null"])
def test_json_that_is_no_object_is_no_report(tmp_path: Path, record: str) -> None:
    with pytest.raises(BadReport):
        read_report(report(tmp_path, record, FOOTER))


def test_a_run_that_dies_leaves_a_report_without_footer(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), recording(tmp_path, {}) as recorder:
        recorder.result(RESULT)
        raise KeyboardInterrupt

    with pytest.raises(BadReport, match="cut off"):
        read_report(tmp_path / "report.jsonl")


def test_a_result_of_an_earlier_version_is_read() -> None:
    """Its impact is that of its kinds; of its deviations it has ids and the first one's reason."""
    record = replace(RESULT, status=KNOWN, deviation="one, two", reason="So it is.").record()
    for name in ("impact", "deviations"):
        del record[name]
    for name in ("impact", "deviation"):
        del record["divergences"][0][name]

    read = Result.of(record)

    assert (read.impact, read.divergences[0].impact) == ("wrong-model", "wrong-model")
    assert [(each.id, each.reason) for each in read.deviations] == [
        ("one", "So it is."),
        ("two", ""),
    ]


def test_a_result_of_a_later_version_is_read_without_what_it_added() -> None:
    record = RESULT.record() | {"mood": "fine"}
    record["divergences"][0]["mood"] = "fine"

    assert Result.of(record).case == RESULT.case


STATUSES = (AGREE, KNOWN, SKIP, DIVERGE, ERROR)


@pytest.mark.parametrize("stale", [[], ["x names y"]], ids=["fresh", "stale"])
@pytest.mark.parametrize(
    "statuses",
    [chosen for size in range(4) for chosen in itertools.combinations(STATUSES, size)],
    ids=lambda chosen: "+".join(chosen) or "none",
)
def test_two_goes_before_one_before_three_before_nought(
    statuses: tuple[str, ...], stale: list[str]
) -> None:
    wanted = 2 if ERROR in statuses else 1 if DIVERGE in statuses else 3 if stale else 0

    assert exit_code([with_status(status) for status in statuses], stale) == wanted
