"""Parts of quantised weights are told by their names, whatever tool stored them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reference_loader.errors import BadConfig
from reference_loader.formats.stored import Format, StoredTensor
from reference_loader.plan.decisions import Action, Match, Placement
from reference_loader.plan.quantised import refuse_quantised

WEIGHT = "model.layers.0.mlp.up_proj.weight"
EXPERTS = "model.layers.0.mlp.experts.gate_up_proj"
SLOTS = {WEIGHT, EXPERTS}
HEAD = "lm_head.weight"  # a tie provides it, as a conversion may


def found(left_over: str, stored_as: dict[str, torch.dtype]) -> Match:
    """One key that the model has no place for, and slots that are filled from these dtypes."""
    placements = []
    for slot, dtype in stored_as.items():
        stored = StoredTensor(slot, Path("file"), dtype, (2,), 0, 2, Format.SAFETENSORS)
        cpu = torch.device("cpu")
        placements.append(Placement(slot, stored, torch.float32, cpu, Action.CAST))
    return Match(tuple(placements), (), (), frozenset([left_over]), frozenset())


@pytest.mark.parametrize(
    ("part", "stored_as"),
    [
        ("model.layers.0.mlp.up_proj.qweight", {}),
        (f"{WEIGHT}_packed", {}),
        (f"{WEIGHT}_scale_inv", {WEIGHT: torch.float8_e4m3fn}),
        (f"{WEIGHT}_scale", {WEIGHT: torch.int8}),
        (f"{WEIGHT}.absmax", {}),
        ("model.layers.0.mlp.up_proj.SCB", {WEIGHT: torch.int8}),
        ("model.layers.0.mlp.up_proj.scales", {}),
        (f"{EXPERTS}_blocks", {}),
    ],
    ids=["GPTQ", "compressed-tensors", "FP8", "int8", "bnb 4 bit", "LLM.int8()", "MLX", "MXFP4"],
)
def test_a_part_is_refused_and_named(part: str, stored_as: dict[str, torch.dtype]) -> None:
    with pytest.raises(BadConfig, match="quantization_config") as refused:
        refuse_quantised(found(part, stored_as), SLOTS - stored_as.keys(), str)

    assert repr(part) in str(refused.value)


@pytest.mark.parametrize(
    ("left_over", "stored_as"),
    [
        (f"{WEIGHT}_scale", {WEIGHT: torch.bfloat16}),
        ("model.layers.0.mlp.up_proj.qweight", {WEIGHT: torch.float32}),
        ("vision.layers.0.qweight", {}),
        ("model.layers.0.extra.weight", {}),
        ("scales", {}),
        (f"{HEAD}_scale", {}),
    ],
    ids=["scale left over", "stored whole too", "of another model", "other key", "none", "tied"],
)
def test_what_is_left_over_beside_a_whole_weight_is_not(
    left_over: str, stored_as: dict[str, torch.dtype]
) -> None:
    refuse_quantised(found(left_over, stored_as), SLOTS - stored_as.keys(), str)
