"""What loading costs: a tiny checkpoint beside stock, in one process, in turn; and each tensor."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM, MixtralForCausalLM

from conformance.bench.many_small import ManySmall
from conformance.observe.loaders import Loader, reference, stock
from conformance.world.messages import quiet
from conformance_fixtures.files import write_hollow, write_index, write_json
from reference_loader import plan

ROUNDS, LOADS = 10, 10

# Of stock's seconds, for tiny checkpoints beside other tests: to watch what a constructor does with
# its weights is a tenth of such a load. `conformance bench` holds the bounds of larger ones.
MOST = 0.80


def seconds(loader: Loader, folder: Path) -> float:
    """Of one load."""
    started = time.perf_counter()
    loader(LlamaForCausalLM, str(folder))
    return time.perf_counter() - started


def ratio(loader: Loader, other: Loader, folder: Path) -> float:
    """The shortest load by `loader` to the shortest by `other`: what else runs only adds.

    Round after round, until it is at most `MOST` or the rounds are over.
    """
    ours, theirs = [], []
    with quiet():
        for _ in range(ROUNDS):
            for _ in range(LOADS):
                ours.append(seconds(loader, folder))
                theirs.append(seconds(other, folder))
            # The first loads do what happens once in a process.
            found = min(ours[2:]) / min(theirs[2:])
            if found <= MOST:
                break
    return found


def thrice(*arguments: Any) -> Any:
    """A loader that is too slow."""
    for _ in range(2):
        reference(*arguments)
    return reference(*arguments)


@pytest.mark.parametrize("recipe", ["llama-f32", "llama-f32-7"])
def test_the_reference_is_faster_than_stock(
    checkpoint: Callable[..., Path],
    same_models: Callable[..., None],
    record_property: Callable[[str, object], None],
    recipe: str,
) -> None:
    """And what it loads meanwhile is the same."""
    folder = checkpoint(recipe)
    found = ratio(reference, stock, folder)
    record_property("ratio", round(found, 3))
    assert found <= MOST
    same_models(*(load(LlamaForCausalLM, str(folder)) for load in (reference, stock)))


def test_a_slower_loader_is_seen(checkpoint: Callable[..., Path]) -> None:
    """However often it is tried."""
    assert ratio(thrice, stock, checkpoint("llama-f32")) > MOST


Shapes = dict[str, list[int]]


def hollow(folder: Path, config: dict[str, Any], shapes: Shapes, shards: int = 20) -> Path:
    """A checkpoint whose payload is a hole, in many shards."""
    folder.mkdir()
    names, shard_of = list(shapes), {}
    for shard in range(shards):
        name, header, end = f"model-{shard:05}.safetensors", {}, 0
        for key in names[len(names) * shard // shards : len(names) * (shard + 1) // shards]:
            start, end = end, end + 4 * math.prod(shapes[key])
            header[key] = {"dtype": "F32", "shape": shapes[key], "data_offsets": [start, end]}
            shard_of[key] = name
        write_hollow(folder / name, json.dumps(header).encode(), end)
    write_index(folder / "model.safetensors.index.json", shard_of, total_size=0)
    write_json(folder / "config.json", config)
    return folder


def pairs(folder: Path, number: int) -> Path:
    """Weights and biases of many small layers."""
    leaves = (("weight", [8, 8]), ("bias", [8]))
    shapes = {f"layers.{n}.{leaf}": shape for n in range(number // 2) for leaf, shape in leaves}
    return hollow(folder, {"model_type": "many-small", "pairs": number // 2}, shapes)


def experts(folder: Path, number: int) -> Path:
    """The matrices of 64 experts in each layer, which a release may merge."""
    config = {
        **{"model_type": "mixtral", "hidden_size": 8, "intermediate_size": 4, "vocab_size": 8},
        **{"num_hidden_layers": number // 192, "num_local_experts": 64},
        **{"num_attention_heads": 1, "num_key_value_heads": 1},
    }
    leaves = (("w1", [4, 8]), ("w2", [8, 4]), ("w3", [4, 8]))
    shapes = {
        f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{leaf}.weight": shape
        for layer in range(number // 192)
        for expert in range(64)
        for leaf, shape in leaves
    }
    return hollow(folder, config, shapes)


@pytest.mark.parametrize("write, model_class", [(pairs, ManySmall), (experts, MixtralForCausalLM)])
def test_the_cost_of_a_plan_is_linear(
    tmp_path: Path, write: Callable[[Path, int], Path], model_class: Any
) -> None:
    """Eight times as many tensors, and not twice as long for each; processor time, least of 3."""
    costs = []
    for number in (1_920, 15_360):
        folder, found = write(tmp_path / str(number), number), []
        for _ in range(3):
            started = time.process_time()
            planned = plan(folder, model_class=model_class)
            found.append((time.process_time() - started) / number)
        converted = sum(len(each.sources) for each in planned.conversions)
        assert len(planned.placements) + converted == number
        costs.append(min(found))
    assert costs[1] < 2 * costs[0]
