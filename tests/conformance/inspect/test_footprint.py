"""`conformance explain`: what a plan comes to, before a weight is read."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from conformance.cli import main
from conformance.inspect.footprint import (
    BadBudget,
    Explanation,
    Part,
    explain,
    named,
    parse_budgets,
    planned,
    size,
)
from conformance.world import memory
from conformance_fixtures.hub.hub import Hub
from conformance_fixtures.llama2_7b import hollow
from conformance_fixtures.llama2_7b_geometry import NAME
from conformance_fixtures.write import materialise
from reference_loader.plan.decisions import Action, Workers

GIB = 2**30
PARAMETERS = 6_738_415_616


@pytest.fixture(scope="module")
def seven_billion(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Llama-2-7B, its payload a hole."""
    return str(hollow(tmp_path_factory.mktemp("7b") / "headers"))


def of(source: str, budgets: str = "", **options: Any) -> Explanation:
    given = parse_budgets(budgets) if budgets else {}
    device_map = options.pop("device_map", next(iter(given), None))
    decided, _ = planned(source, device_map=device_map, max_memory=given or None, **options)
    return explain(decided, named(given))


def test_llama_2_7b_fits_a_24_gb_card_in_float16_and_not_in_float32(seven_billion: str) -> None:
    """The example of the README."""
    wide = of(seven_billion, "0=24GiB,cpu=64GiB", dtype="float32")
    assert [fit.fits for fit in wide.fits] == [False, True]
    assert wide.peaks.devices["cuda:0"] == pytest.approx(4 * PARAMETERS, rel=0.01)
    assert wide.advice[0].startswith("--dtype bfloat16 or float16: 12.6 GiB")
    assert "--device-map auto: the budgets together hold it" in wide.advice

    narrow = of(seven_billion, "0=24GiB")
    assert [fit.fits for fit in narrow.fits] == [True]
    assert narrow.advice == ()
    assert narrow.parts == (
        Part("cuda:0", "float16", "float16", "copy", 291, PARAMETERS, *[2 * PARAMETERS] * 2),
    )


def test_seven_billion_are_explained_in_a_second(seven_billion: str) -> None:
    """Headers only: there is nothing else in these files."""
    planned(seven_billion, model_class=LlamaForCausalLM)  # imports
    started = time.process_time()
    of(seven_billion, model_class=LlamaForCausalLM)
    assert time.process_time() - started < 1.0


def test_the_model_without_its_weights_is_counted(seven_billion: str) -> None:
    """On the CPU, whatever the weights are on; it decides whether a budget is kept, too."""
    decided, _ = planned(seven_billion, device_map={"": 0})
    bare, whole = explain(decided), explain(decided, {"cpu": 64 * GIB}, taken=7)
    assert whole.peaks.host - bare.peaks.host == whole.peaks.model == 7
    assert [fit.needs for fit in whole.fits] == [whole.peaks.host]


def test_what_the_model_takes_is_measured_in_the_command(seven_billion: str) -> None:
    """In a process of its own, where nothing that was freed can be used once more."""
    words = [sys.executable, "-m", "conformance", "explain", seven_billion, "--format", "json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    peak = json.loads(done.stdout)["peak"]
    assert 2**20 < peak["model"] < 100 * 2**20
    assert peak["host"] == peak["anonymous"] + peak["file"] + peak["model"]


def test_a_system_that_tells_no_peak_is_explained_on(
    seven_billion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "nothing")
    decided, taken = planned(seven_billion)
    assert taken == 0
    assert len(decided.placements) == 291


def test_what_fits_nowhere_is_for_the_disk(seven_billion: str) -> None:
    told = of(seven_billion, "0=2GiB,cpu=4GiB", dtype="float16", device_map={"": 0}).advice
    assert told == ("--device-map auto with an offload_folder: the rest stays on disk",)
    told = of(seven_billion, "0=10GiB,cpu=10GiB", dtype="float32", device_map={"": 0}).advice
    assert told == ("--dtype bfloat16 and --device-map auto: 12.6 GiB over all budgets",)


def test_the_ways_of_a_load_are_told_apart(checkpoint: Callable[..., Path]) -> None:
    """Views, casts, what is initialised, what stays on disk."""
    source = str(checkpoint("llama-mixed-2", "missing-key"))
    told = of(source, dtype="float16", device_map={"": "cpu", "lm_head": "disk"})
    assert {part.action for part in told.parts} == {"view", "cast", "initialised", "disk offload"}
    (lost,) = [part for part in told.parts if part.action == "initialised"]
    assert (lost.tensors, lost.stored, lost.on_disk) == (1, "", 0)
    (disk,) = [part for part in told.parts if part.action == "disk offload"]
    assert disk.in_memory == 0 < disk.on_disk
    views = sum(part.in_memory for part in told.parts if part.action == "view")
    whole = sum(part.in_memory for part in told.parts)
    assert told.peaks.anonymous == whole - views
    assert told.peaks.file >= views


def test_what_is_converted_is_counted(checkpoint: Callable[..., Path]) -> None:
    """A mixture of experts is not smaller than its file because its experts are merged."""
    folder = checkpoint("mixtral-3")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    told = of(str(folder))
    (merged,) = [part for part in told.parts if part.action == "converted"]
    assert (merged.device, merged.stored, merged.dtype) == ("cpu", "float32", "float32")
    assert merged.tensors == 2  # twelve experts' gate and up, and their down
    assert merged.on_disk == merged.in_memory == 4 * merged.parameters == 12 * 3 * 8 * 16 * 4
    assert sum(part.on_disk for part in told.parts) == index["metadata"]["total_size"]
    assert told.peaks.anonymous >= merged.in_memory

    cast = of(str(folder), dtype="bfloat16")
    (merged,) = [part for part in cast.parts if part.action == "converted"]
    assert merged.on_disk == 2 * merged.in_memory

    offloaded = of(str(folder), device_map={"": "disk"})
    (merged,) = [part for part in offloaded.parts if part.action == "converted"]
    assert (merged.device, merged.in_memory) == ("disk", 0)
    # One at a time is put together before it is written.
    assert offloaded.peaks.anonymous >= merged.on_disk // 2


def test_what_a_conversion_computes_needs_memory_beside_its_place(
    checkpoint: Callable[..., Path],
) -> None:
    decided, _ = planned(str(checkpoint("mixtral-3")), dtype="bfloat16")
    computed = tuple(replace(each, pieces=None) for each in decided.conversions)
    other = replace(decided, match=replace(decided.match, conversions=computed))
    largest = max(each.nbytes for each in computed)
    # The sources, cast, are as large as the result, and the operations make it once more.
    assert explain(other).peaks.anonymous - explain(decided).peaks.anonymous == 2 * largest


def test_the_plan_decides_and_is_not_asked_twice(checkpoint: Callable[..., Path]) -> None:
    """Whatever a plan says of actions, devices and workers is what is explained."""
    decided, _ = planned(str(checkpoint("llama-f32", "missing-norm")))
    before = explain(decided)
    copied = tuple(replace(p, action=Action.COPY) for p in decided.placements)
    gpu = torch.device("cuda", 1)
    other = replace(
        decided,
        match=replace(decided.match, placements=copied),
        fresh={name: replace(fresh, device=gpu) for name, fresh in decided.fresh.items()},
        workers={torch.device("cpu"): Workers(3, 1, 1000), gpu: Workers(2, 4, 100)},
    )
    after = explain(other)
    assert {(p.action, p.device) for p in before.parts} == {("view", "cpu"), ("initialised", "cpu")}
    assert {(p.action, p.device) for p in after.parts} == {
        ("copy", "cpu"),
        ("initialised", "cuda:1"),
    }
    (fresh,) = decided.fresh.values()
    assert after.peaks.devices == {"cuda:1": fresh.nbytes + 200}
    weights = sum(placement.nbytes for placement in decided.placements)
    assert (before.peaks.anonymous, before.peaks.file) == (fresh.nbytes, weights)
    assert (after.peaks.anonymous, after.peaks.file) == (weights + 3000 + 800, 0)


LOADED = """
import sys
from conformance.world import memory
from conformance.inspect.footprint import explain, planned
from reference_loader import from_pretrained

options = {"dtype": sys.argv[2], "ignore_mismatched_sizes": True}
from_pretrained(sys.argv[3], **options)  # what happens once in a process
decided, taken = planned(sys.argv[1], **options)
predicted = explain(decided, taken=taken).peaks
with memory.peaks(sampled=False) as found:
    model = from_pretrained(sys.argv[1], **options)
print(found.total, predicted.host)
"""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_peak_is_that_of_the_load(own: Any, dtype: str) -> None:
    """Within a tenth, where the weights are large enough to say so, in a process of its own."""
    folder = own("llama-f32", vocab_size=1_200_000, tie_word_embeddings=True)
    words = [sys.executable, "-c", LOADED, str(folder), dtype, str(own("llama-f32"))]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found, predicted = map(int, done.stdout.split())
    assert found == pytest.approx(predicted, rel=0.1)


@pytest.mark.parametrize("text", ["0", "cpu=much", "=", "0=1GiB,,"], ids=repr)
def test_a_budget_that_is_none_is_usage(
    text: str, seven_billion: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadBudget):
        parse_budgets(text)
    assert main(["explain", seven_billion, "--max-memory", text]) == 64
    assert "--max-memory" in capsys.readouterr().err


def test_sizes_are_said_as_people_do() -> None:
    numbers = (0, 1023, 1024, 1536 * 1024, 24 * GIB, 5000 * GIB)
    told = ["0 bytes", "1023 bytes", "1.0 KiB", "1.5 MiB", "24.0 GiB", "5000.0 GiB"]
    assert [size(number) for number in numbers] == told


def test_as_json_it_is_plan_and_explanation(
    seven_billion: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", seven_billion, "--max-memory", "0=24GiB", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["dtype"] == "torch.float16"
    assert told["parts"][0]["parameters"] == PARAMETERS
    assert told["fits"] == [
        {"device": "cuda:0", "needs": told["peak"]["devices"]["cuda:0"]}
        | {"budget": 24 * GIB, "fits": True}
    ]


def test_a_device_map_is_a_word_a_device_or_json(
    seven_billion: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = '{"": "cpu", "lm_head": "disk"}'
    assert main(["explain", seven_billion, "--device-map", asked]) == 0
    assert "disk" in capsys.readouterr().out
    assert main(["explain", seven_billion, "--device-map", "{"]) == 64


def test_the_fixture_is_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fixture", NAME, str(tmp_path / "made")]) == 0
    assert planned(str(tmp_path / "made"))[0].dtype == torch.float16


def test_of_a_repository_only_headers_are_asked_for(world: Hub, tmp_path: Path) -> None:
    """And what they say is what the whole files say."""
    folder = materialise("llama-f32-7")
    world.publish("org/tiny", folder)
    found, _ = planned("org/tiny")
    local, _ = planned(str(folder))
    assert [p.target for p in found.placements] == [p.target for p in local.placements]
    assert explain(found) == explain(local)
    asked = [r for r in world.requests if r.path.startswith("/cdn/") and r.method == "GET"]
    assert len(asked) == 7
    assert all(r.range for r in asked)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_pickled_weights_of_a_repository_are_fetched(world: Hub) -> None:
    """Their headers cannot be had alone."""
    folder = materialise("llama-f32", ("pickled",))
    world.publish("org/old", folder)
    assert explain(planned("org/old")[0]) == explain(planned(str(folder))[0])
