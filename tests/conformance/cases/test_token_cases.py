"""Cases whose id is the load itself, on the command line and in pytest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from conformance import cli
from conformance.cases.case import BASE, INVALID, VALID, Torch
from conformance.cases.catalogue import CASES, select
from conformance.cases.token_cases import PREFIX, Load
from conformance.results.records import read_report
from conformance_fixtures.random_checkpoints import Drawn, Stored, whole
from conformance_fixtures.tokens import pack, unpack

pytest_plugins = ["pytester"]

WHOLE = tuple(Stored(key, shape) for key, shape in whole(1, 2, "LlamaForCausalLM").items())
FIELDS = {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False}
GOOD = Load(Drawn((WHOLE,), FIELDS), options={"dtype": Torch("bfloat16")}).case()
SHORT = tuple(Stored("model.norm.weight", (7,)) if s.shape == (8,) else s for s in WHOLE[-2:])
REFUSED = Load(Drawn((WHOLE[:-2], SHORT), FIELDS), BASE, refused=True).case()
TOKEN = GOOD.id.removeprefix(PREFIX)

NONSENSE = [
    "",
    "*",
    "nonsense",
    "ü",
    TOKEN[:-2],
    TOKEN[2:],
    TOKEN.swapcase(),
    TOKEN + "AAAA",
    pack([]),
    pack({}),
    pack({**unpack(TOKEN), "drawn": {}}),
    pack({**unpack(TOKEN), "drawn": {**unpack(TOKEN)["drawn"], "shards": [[{"key": "a"}]]}}),
    pack({**unpack(TOKEN), "options": []}),
    pack({**unpack(TOKEN), "options": {"dtype": ["float16", "float32"]}}),
    pack({**unpack(TOKEN), "more": 1}),
]


def judged(folder: Path) -> list[tuple[str, str, str]]:
    """Case, input class and status of each result."""
    records = read_report(folder / "report.jsonl")
    return [(r["case"], r["input_class"], r["status"]) for r in records if r["record"] == "result"]


def test_an_id_is_a_case_beside_those_of_the_tables(warm: None, tmp_path: Path) -> None:
    ids = (REFUSED.id, "tie/equal", GOOD.id)
    words = [word for each in ids for word in ("--case", each)]

    assert cli.main(["check", *words, "--out", str(tmp_path)]) == 0

    assert judged(tmp_path) == [
        ("tie/equal", VALID, "agree"),
        (REFUSED.id, INVALID, "agree"),
        (GOOD.id, VALID, "agree"),
    ]


def test_what_the_reference_does_not_do_as_the_id_says_is_no_verdict(
    warm: None, tmp_path: Path
) -> None:
    load = Load(Drawn((WHOLE,), FIELDS), refused=True).case()

    assert cli.main(["check", "--case", load.id, "--out", str(tmp_path)]) == 2


@pytest.mark.slow
def test_an_id_is_loaded_in_each_environment_of_a_comparison(tmp_path: Path) -> None:
    targets = ("current", f"python:{sys.executable}")

    assert cli.main(["compare", *targets, "--case", GOOD.id, "--out", str(tmp_path)]) == 0

    records = read_report(tmp_path / "report.jsonl")
    changes = [(r["case"], r["change"]) for r in records if r["record"] == "change"]
    assert changes == [(GOOD.id, "unchanged")]


def test_an_id_is_taken_once_and_only_with_a_clause_it_cites() -> None:
    assert select(CASES, [GOOD.id, GOOD.id], []) == [GOOD]
    assert select(CASES, [GOOD.id], GOOD.clauses) == [GOOD]
    assert select(CASES, [GOOD.id], ["TIE-1"]) == []


@pytest.mark.parametrize("token", NONSENSE)
def test_a_word_that_is_no_load_is_a_usage_error(
    token: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    assert cli.main(["check", "--case", PREFIX + token, "--out", str(out)]) == 64

    streams = capsys.readouterr()
    assert streams.out == ""
    assert "token" in streams.err
    assert len(streams.err.splitlines()) == 1
    assert not out.exists()


def test_any_json_is_a_word_for_the_command_line() -> None:
    data: Any = {"ünlikely": [1, None, {"a": "b" * 1000}], "true": True}

    assert unpack(pack(data)) == data
    assert pack(data).replace("-", "").replace("_", "").isalnum()


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pytester: pytest.Pytester) -> None:
    """Pytester moves HOME; a cache that is new shows that the id is all that is needed."""
    monkeypatch.setenv("FROM_PRETRAINED_CONFORMANCE_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow
def test_an_id_is_an_item(cache: None, pytester: pytest.Pytester) -> None:
    done = pytester.runpytest_subprocess(
        *("--pyargs", "conformance", "-v", "--conformance-case", GOOD.id),
        *("--conformance-loader", "conformance.mutants:one_ulp_off"),
    )

    done.assert_outcomes(failed=1)
    loader = "--loader conformance.mutants:one_ulp_off"
    done.stdout.fnmatch_lines([f"  rerun: conformance check --case {GOOD.id} {loader}"])


def test_a_word_that_is_no_load_is_a_usage_error_in_pytest(
    cache: None, pytester: pytest.Pytester
) -> None:
    done = pytester.runpytest_subprocess(
        "--pyargs", "conformance", "--conformance-case", PREFIX + TOKEN[:-2]
    )

    assert done.ret != 0
    output = done.stdout.str() + done.stderr.str()
    assert "--conformance-case: " in output
    assert "Traceback" not in output
