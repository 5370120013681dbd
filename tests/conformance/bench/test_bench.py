"""`conformance bench`: what it measures, and that it can find fault."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from conformance.bench import series
from conformance.bench.bounds import Held, hold
from conformance.bench.checkpoints import Weights, many_small, mixtral, size_of, written
from conformance.bench.contenders import CONTENDERS, STOCK, Contender, Task, by_name
from conformance.bench.sample import Order, Sample, digest, measure
from conformance.bench.series import NotMeasured, Row, Series, take
from conformance.bench.tables import plot
from conformance.bench.workloads import BOUNDS, CASES, Bound, Case
from conformance.cli import main
from conformance.commands.bench import select
from conformance.world import memory
from conformance_fixtures.write import materialise

MIB = 2**20
TINY = next(case for case in CASES if case.id == "tiny")


def task(recipe: str = "llama-f32-2", dtype: str = "auto") -> Task:
    return Task(str(materialise(recipe)), dtype, TINY.model, "cpu")


def order(contender: str = STOCK, again: int = 0, dtype: str = "auto") -> Order:
    return Order(contender, task(dtype=dtype), again, False, False, MIB, 0.0)


def row(contender: str, *seconds: float, digest: str = "same", peak: int = 100) -> Row:
    samples = [Sample(first=s, again=[s, s], digest=digest) for s in seconds]
    peaks = {"total": peak, "anonymous": 7, "file": 0}
    return Row(contender, samples, Sample(peaks=peaks, gpu={"allocated": 103}))


def rows(*found: Row, **fields: Any) -> Series:
    given = {"stored": 50, "result": 100, "predicted": 104} | fields
    return Series(TINY, **given, rows={each.contender: each for each in found})


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda each: each.name)
@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_every_contender_loads_the_same_tensors(contender: Contender, dtype: str) -> None:
    """In whatever dtype; who is not installed says so."""
    asked = task(dtype=dtype)
    if why := contender.lacks(asked):
        pytest.skip(why)
    expected = by_name(STOCK).prepare(asked)()
    assert digest(contender.prepare(asked)()) == digest(expected)


def test_who_cannot_load_it_says_why() -> None:
    def why(where: str = "cpu", converts: bool = False, **given: Any) -> str:
        asked = replace(task(), device=where, converts=converts)
        return Contender("one", CONTENDERS[0].prepare, **given).lacks(asked)

    assert why() == ""
    assert why(needs="no_such_package") == "no_such_package is not installed"
    assert why(needs="json:loads") == why(needs="json:JSONDecoder.decode") == ""
    assert why(needs="json:no.such") == "the json that is installed has no no.such"
    assert why(device="cuda") == "loads to cuda only"
    assert why("cuda:0", device="cuda") == ""
    assert why(converts=True) == "merges no stored tensors"


def test_a_digest_sees_names_dtypes_and_values() -> None:
    model = torch.nn.Linear(2, 2)
    found = {digest(model)}
    found.add(digest(torch.nn.Sequential(model)))
    model.bias.data = model.bias.data.double()
    found.add(digest(model))
    model.bias.data[0] += 1
    found.add(digest(model))
    assert len(found) == 4


def test_a_sample_has_every_clock() -> None:
    sample = measure(order("reference", again=3))
    assert 0 < sample.first <= sample.touched
    assert len(sample.again) == 3
    assert sample.imports > 0 < sample.whole
    assert sample.digest == measure(order()).digest


def test_a_peak_is_above_what_was_there() -> None:
    """The most at one time, of memory that is mapped anew: the heap may have had room."""
    with memory.peaks(sampled=True) as found:
        memory.warm(20 * MIB)
        memory.warm(12 * MIB)
    assert 19 * MIB < found.total < 26 * MIB
    assert found.anonymous <= found.total + MIB


@pytest.mark.slow
def test_a_process_measures_and_its_failure_is_told() -> None:
    case = replace(TINY, again=1)
    broken = Contender("broken", lambda _: 1 / 0)  # type: ignore[arg-type,return-value]
    found = take(case, [by_name("reference, own Llama"), broken], 1, lambda _: None)
    ours, theirs = found.rows.values()
    assert len(ours.samples) == 1
    assert ours.memory.peaks["total"] > 0
    assert found.equal
    assert not theirs.samples
    assert "StopIteration" in theirs.lacks  # the process knows no contender of that name


@pytest.mark.slow
def test_the_peak_of_a_model_of_small_tensors_is_predicted() -> None:
    """It is that of its modules, of which the headers say nothing: the explanation makes them."""
    small = next(case for case in CASES if case.id == "small")
    case = replace(small, weights=many_small(1500), again=0)
    found = take(case, [by_name("reference")], 1, lambda _: None)
    (ours,) = found.rows.values()
    assert found.predicted > 8 * found.stored
    assert ours.samples[0].peaks["total"] == pytest.approx(found.predicted, rel=0.1)


def test_who_takes_too_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "TIMEOUT", 0.01)
    with pytest.raises(NotMeasured, match=r"more than"):
        series._json_of_process("sample", "{}", {})


def test_ratios_and_shares_are_of_medians() -> None:
    found = rows(row(STOCK, 1.0, 2.0, 30.0), row("reference", 0.5, 1.0, 1.5), limit=[0.8, 0.9, 5])
    assert found.ratio("reference", "again") == 0.5
    assert found.share("reference") == 0.9
    assert found.ratio("accelerate", "again") is None
    assert rows(row("reference", 1.0)).share("reference") is None


def test_one_other_tensor_is_an_unequal_case() -> None:
    assert rows(row(STOCK, 1.0), row("reference", 1.0)).equal
    assert not rows(row(STOCK, 1.0), row("reference", 1.0, digest="other")).equal


@pytest.mark.parametrize(
    "clock, most, kept",
    [
        ("again", 0.5, True),
        ("again", 0.49, False),
        ("peak", 1.0, True),
        ("peak", 0.99, False),
        ("peak, stock", 0.8, True),
        ("peak, stock", 0.79, False),
        ("above", 0.0, True),
        ("above", -0.1, False),
        ("limit", 0.9, True),
        ("limit", 0.91, False),
        ("predicted", 0.05, True),
        ("predicted", 0.03, False),
        ("anonymous", 7e-6, True),
        ("anonymous", 6e-6, False),
        ("gpu", 3e-6, True),
        ("gpu", 2e-6, False),
    ],
)
def test_a_bound_can_be_broken(
    monkeypatch: pytest.MonkeyPatch, clock: str, most: float, kept: bool
) -> None:
    bound = Bound("a bound", TINY.id, clock, most)
    monkeypatch.setattr("conformance.bench.bounds.BOUNDS", (bound,))
    found = rows(row(STOCK, 2.0, peak=125), row("reference", 1.0), limit=[0.9])
    assert [held.kept for held in hold([found])] == [kept]
    assert [held.kept for held in hold([rows(row(STOCK, 2.0), limit=[0.9])])] == [None]


def test_bounds_name_cases_and_contenders() -> None:
    names = {contender.name for contender in CONTENDERS}
    assert {bound.case for bound in BOUNDS} <= {case.id for case in CASES}
    assert {bound.of for bound in BOUNDS} <= names
    assert Held(BOUNDS[0], None).kept is None


def test_without_a_gpu_its_cases_are_left_out() -> None:
    devices = {case.device for case in select([])}
    assert devices == ({"cpu", "cuda"} if torch.cuda.is_available() else {"cpu"})


def test_a_checkpoint_is_written_once_and_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_PRETRAINED_CONFORMANCE_CACHE", str(tmp_path))
    folder = written(many_small(8))
    assert size_of(folder) > 8 * (64 + 8) * 4
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert written(many_small(8)) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    case = Case("few", "few", many_small(8), model="conformance.bench.many_small:ManySmall")
    small = Task(str(folder), "auto", case.model, "cpu")
    assert len({digest(by_name(n).prepare(small)()) for n in (STOCK, "reference")}) == 1
    assert by_name("reference, own Llama").lacks(small) == "loads Llama only"
    assert written(Weights("llama-f32")) == materialise("llama-f32")


def test_experts_are_merged_by_all_who_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A contender that merges nothing would leave random weights and be fast."""
    monkeypatch.setenv("FROM_PRETRAINED_CONFORMANCE_CACHE", str(tmp_path))
    small = mixtral(1, "bfloat16")
    sizes = {"hidden_size": 64, "intermediate_size": 32, "vocab_size": 16}
    folder = written(replace(small, config={**small.config, **sizes}))
    case = next(case for case in CASES if case.id == "moe-same")
    asked = Task(str(folder), case.dtype, case.model, "cpu", case.converts)
    able = [each for each in CONTENDERS if not each.lacks(asked)]
    assert {each.name for each in able} >= {STOCK, "reference"}
    assert len({digest(each.prepare(asked)()) for each in able}) == 1


def test_the_plot_is_an_svg_of_every_case() -> None:
    drawn = plot([rows(row(STOCK, 2.0), row("<reference>", 1.0)), rows(row(STOCK, 1.0))])
    texts = [each.text for each in ElementTree.fromstring(drawn).iter() if each.text]
    assert texts.count(STOCK) == 2
    assert "<reference>" in texts


@pytest.mark.slow
def test_the_command_measures_shows_and_keeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--case", "tiny", "--contender", "reference, own*", "--rounds", "1")
    assert main(["bench", *asked, "--out", str(tmp_path / "kept")]) == 0
    out = capsys.readouterr().out
    assert "reference, own Llama" in out
    assert "not measured" in out
    kept = json.loads((tmp_path / "kept" / "bench.json").read_text())
    assert kept["cases"][0]["equal"] is True
    assert kept["machine"]["torch"] in torch.__version__
    assert (tmp_path / "kept" / "bench.svg").read_text().lstrip().startswith("<svg")


@pytest.mark.parametrize("words", [["--case", "none"], ["--rounds", "0"]], ids=str)
def test_nothing_to_measure_is_usage(words: list[str]) -> None:
    assert main(["bench", *words]) == 64
