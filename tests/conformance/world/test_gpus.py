"""Cases that need a GPU: what they ask for, and what becomes of them where there is none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conformance import cli
from conformance.cases import gpu
from conformance.cases.case import Case, Torch
from conformance.cases.catalogue import CASES, IDS, catalogue, on
from conformance.cases.own import Own, own_cases
from conformance.judge.session import judge, rerun
from conformance.observe.loaders import stock
from conformance.observe.outputs import _home
from conformance.results.records import AGREE, DIVERGE, SKIP
from conformance.spec import clauses
from conformance.world import gpus as accelerators
from conformance.world.gpus import gpus, lacks


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`machine(n)`: this one, as if it had that many GPUs."""

    def has(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return has


def on_the_cpu(case: Case) -> Case:
    """The same case where every GPU is the CPU; of the budgets the GPU's is left."""
    options = dict(case.options)
    asked = options["device_map"]
    maps = isinstance(asked, Mapping)
    options["device_map"] = {k: _cpu(v) for k, v in asked.items()} if maps else _cpu(asked)
    if "max_memory" in options:
        options["max_memory"] = {"cpu": options["max_memory"][0]}
    return replace(case, device="cpu", options=options)


def _cpu(place: Any) -> Any:
    gpu = isinstance(place, int | Torch) or place in ("cuda", "cuda:0")
    return "cpu" if gpu else place


def test_their_ids_are_those_of_the_catalogue_or_their_own() -> None:
    own = [case.id for case in gpu.CASES]
    assert len(set(own)) == len(own)
    assert not set(own) & {case.id for case in CASES}
    assert {case.id for case in catalogue("cuda")} <= set(IDS)
    for case in gpu.CASES:
        assert re.fullmatch(r"[a-z]{3}/gpu-[a-z0-9]+(-[a-z0-9]+)*|[a-z]{3}/gpu", case.id)
        assert set(case.clauses) <= set(clauses())


def test_every_case_of_a_gpu_says_so_and_asks_for_one() -> None:
    assert catalogue() == catalogue("cpu") == CASES
    assert not [case for case in CASES if case.device != "cpu"]
    for case in catalogue("cuda"):
        assert case.device == "cuda"
        asked = case.options["device_map"]
        places = [*asked.values()] if isinstance(asked, Mapping) else [asked]
        gpus_named = [place for place in places if place != "cpu" and _cpu(place) == "cpu"]
        assert gpus_named or asked in gpu.WHOLE.values(), "a map, or a word for one"


@pytest.mark.parametrize("case", gpu.CASES, ids=lambda case: case.id)
def test_they_hold_with_the_cpu_in_place_of_the_gpu(case: Case, session: Any) -> None:
    """All but the device itself: recipe, map, budgets, folder, clauses and their checks."""
    result = judge(on_the_cpu(case), session)
    assert result.status == AGREE, result


def test_and_can_fail(judging: Any) -> None:
    def shifted(model_class: Any, source: Any, **options: Any) -> Any:
        model, info = stock(model_class, source, **options)
        model.model.norm.weight.data += 1
        return model, info

    chosen = next(case for case in gpu.CASES if case.id == "plc/gpu-head-on-disk")
    result = judge(on_the_cpu(chosen), judging(shifted))
    assert result.status == DIVERGE
    assert {divergence.kind for divergence in result.divergences} == {"values", "output"}


@pytest.mark.parametrize(
    ("device_map", "budgets", "wanted"),
    [
        ("cuda", None, 1),
        (0, None, 1),
        ("cuda:1", None, 2),
        (Torch("device:cuda:3"), None, 4),
        ({"a": "cpu", "b": 1, "c": "disk"}, None, 2),
        ("auto", {0: 10, 1: 10, "cpu": 10}, 2),
    ],
    ids=str,
)
def test_how_many_gpus_a_case_needs(device_map: Any, budgets: Any, wanted: int) -> None:
    options = {"device_map": device_map} | ({"max_memory": budgets} if budgets else {})
    assert gpus(Case("plc/x", (), options=options, device="cuda")) == wanted


def test_what_a_machine_lacks(machine: Any) -> None:
    one, two = (Case("plc/x", (), options={"device_map": n}, device="cuda") for n in (0, 1))
    machine(0)
    assert lacks(Case("plc/x", ())) == ""
    assert "no CUDA device" in lacks(one)
    machine(1)
    assert lacks(one) == ""
    assert lacks(two) == "needs 2 GPUs; this machine has 1"
    machine(2)
    assert lacks(two) == ""


def test_a_case_without_its_gpu_is_skipped_with_the_reason(machine: Any, session: Any) -> None:
    machine(0)
    result = judge(gpu.CASES[0], session)
    assert (result.status, result.divergences) == (SKIP, ())
    assert "no CUDA device" in result.reason
    assert rerun(gpu.CASES[0], session) == "conformance check --case plc/gpu-name --device cuda"


def test_what_is_drawn_on_a_gpu_is_not_judged(
    monkeypatch: pytest.MonkeyPatch, session: Any
) -> None:
    monkeypatch.setattr(accelerators, "absent", lambda device: "")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    case = Case("plc/x", ("PLC-1",), "llama-untied-embedding", device="cuda")
    result = judge(replace(case, options={"device_map": "cpu"}), session)
    assert result.status == SKIP
    assert "lm_head.weight" in result.reason


def test_a_run_without_a_gpu_is_no_verdict(
    machine: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(0)
    assert cli.main(["check", "--device", "cuda"]) == 2
    assert "--device cuda: no CUDA device" in capsys.readouterr().err


def test_a_checkpoint_of_ones_own_goes_to_the_device(tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").touch()
    cases = {case.id.rpartition("/")[2]: case for case in own_cases(Own((tmp_path,)))}
    case = on("cuda", cases["float16"])
    assert (case.device, case.options["device_map"]) == ("cuda", "cuda")
    assert case.options["dtype"] == Torch("float16")
    assert on("cpu", case) is case


def test_the_prompt_lies_where_the_model_wants_it() -> None:
    """On the first GPU that holds a parameter, else on the CPU."""

    def model(*names: str) -> Any:
        places = [SimpleNamespace(device=torch.device(name)) for name in names]
        return SimpleNamespace(parameters=lambda: places)

    assert _home(model("meta", "cpu")) == torch.device("cpu")
    assert _home(model("meta", "cpu", "cuda:1", "cuda:0")) == torch.device("cuda:1")
