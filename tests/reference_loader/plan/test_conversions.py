"""Which stored experts make which tensor, decided before one is read (CNV-1)."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MixtralForCausalLM

from reference_loader import from_pretrained, plan
from reference_loader.errors import BadConfig, BadConversion, ShapeMismatch
from reference_loader.plan.conversions import natural

MERGED = "model.layers.0.mlp.experts.gate_up_proj"
EXPERT = "model.layers.0.block_sparse_moe.experts.{}.{}.weight"

pytestmark = pytest.mark.skipif(
    find_spec("transformers.conversion_mapping") is None, reason="before release 5"
)


@pytest.fixture
def mixtral(own: Any) -> Path:
    """A copy of the fixture that may be changed."""
    return own("mixtral")  # type: ignore[no-any-return]


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_numbers_order_keys() -> None:
    assert sorted(["a.10.w", "a.9.w", "a.b", "a.1.w"], key=natural) == [
        *("a.1.w", "a.9.w", "a.10.w"),
        "a.b",
    ]


def test_the_plan_says_which_stored_tensors_make_which(mixtral: Path) -> None:
    decided = plan(mixtral)

    (merged,) = [each for each in decided.conversions if each.target == MERGED]
    assert [source.key for source in merged.sources[:12]] == [
        EXPERT.format(n, "w1") for n in range(12)
    ]
    assert merged.pieces is not None and len(merged.pieces) == 24
    assert f"{MERGED}  <-  12 x {EXPERT.format(0, 'w1')}, 12 x" in str(decided)
    told = decided.to_dict()["conversions"]
    assert {each["target"] for each in told} == {each.target for each in decided.conversions}
    assert not decided.missing and not decided.unexpected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_experts_are_stacked_by_number(mixtral: Path, dtype: torch.dtype) -> None:
    stored = load_file(mixtral / "model.safetensors")

    model = from_pretrained(mixtral, dtype=dtype)

    halves = [
        torch.stack([stored[EXPERT.format(n, name)].to(dtype) for n in range(12)])
        for name in ("w1", "w3")
    ]
    assert torch.equal(model.get_parameter(MERGED), torch.cat(halves, dim=1))


@pytest.mark.parametrize("where", ["disk", "state dict"])
def test_experts_are_merged_wherever_they_come_from_or_go(
    mixtral: Path, where: str, tmp_path: Path
) -> None:
    wanted = from_pretrained(mixtral, dtype=torch.float32)
    if where == "disk":
        options = {"device_map": {"": "disk"}, "offload_folder": tmp_path / "offload"}
        model = from_pretrained(mixtral, dtype=torch.float32, **options)
    else:
        state = load_file(mixtral / "model.safetensors")
        given = {"state_dict": state, "config": mixtral, "model_class": MixtralForCausalLM}
        model = from_pretrained(None, dtype=torch.float32, **given)
    tokens = torch.arange(6)[None]
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, wanted(tokens).logits)


def test_a_hole_in_the_numbers_is_refused_and_nothing_is_shifted(mixtral: Path) -> None:
    def renumber(tensors: dict[str, torch.Tensor]) -> None:
        for name in ("w1", "w2", "w3"):
            tensors[EXPERT.format(12, name)] = tensors.pop(EXPERT.format(5, name))

    with pytest.raises(BadConversion, match=r"number 5 is not stored") as caught:
        from_pretrained(changed(mixtral, renumber))
    assert EXPERT.format(0, "w1") in str(caught.value) or "experts" in str(caught.value)


def test_a_list_that_is_one_short_is_of_a_wrong_shape(mixtral: Path) -> None:
    def shorten(tensors: dict[str, torch.Tensor]) -> None:
        for name in ("w1", "w2", "w3"):
            del tensors[EXPERT.format(11, name)]

    with pytest.raises(ShapeMismatch, match="experts"):
        from_pretrained(changed(mixtral, shorten))


@pytest.mark.parametrize("lacking", ["one up projection", "every up projection"])
def test_half_a_pair_is_refused(mixtral: Path, lacking: str) -> None:
    def halve(tensors: dict[str, torch.Tensor]) -> None:
        for number in range(11 if lacking.startswith("one") else 0, 12):
            del tensors[EXPERT.format(number, "w3")]

    with pytest.raises((BadConversion, ShapeMismatch), match="experts"):
        from_pretrained(changed(mixtral, halve))


def test_an_expert_of_a_wrong_shape_is_named(mixtral: Path) -> None:
    def widen(tensors: dict[str, torch.Tensor]) -> None:
        tensors[EXPERT.format(3, "w1")] = torch.ones(9, 16)

    with pytest.raises(BadConversion, match=r"experts\.gate_up_proj.*MergeModulelist"):
        from_pretrained(changed(mixtral, widen))


def test_mixed_dtypes_of_one_list_are_cast_each(mixtral: Path) -> None:
    wanted = from_pretrained(mixtral, dtype=torch.bfloat16).get_parameter(MERGED).clone()

    def mix(tensors: dict[str, torch.Tensor]) -> None:
        key = EXPERT.format(3, "w1")
        tensors[key] = tensors[key].to(torch.bfloat16)

    model = from_pretrained(changed(mixtral, mix), dtype=torch.bfloat16)
    assert torch.equal(model.get_parameter(MERGED), wanted)


def test_what_is_already_merged_is_taken_as_it_is(mixtral: Path) -> None:
    wanted = from_pretrained(mixtral, dtype=torch.float32).state_dict()

    def merge(tensors: dict[str, torch.Tensor]) -> None:
        tensors.clear()
        tensors.update({name: tensor.clone() for name, tensor in wanted.items()})

    folder = changed(mixtral, merge)
    assert not plan(folder).conversions
    loaded = from_pretrained(folder, dtype=torch.float32).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in wanted.items())


def quantised(tensors: dict[str, torch.Tensor], part: str, kept: str) -> None:
    """Every expert's matrices, as a tool for quantisation stores them."""
    for weight in [key for key in tensors if ".experts." in key]:
        tensors[f"{weight}{part}"] = torch.ones(1, 1)
        whole = tensors.pop(weight)
        if kept:
            tensors[weight] = whole.to(getattr(torch, kept))


@pytest.mark.parametrize(
    "part, kept", [("_scale_inv", "float8_e4m3fn"), ("_packed", ""), ("_scale", "int8")]
)
def test_a_part_of_a_quantised_expert_is_refused(mixtral: Path, part: str, kept: str) -> None:
    """The parameter it belongs to has no name of its own once experts are merged (MIS-7)."""
    changed(mixtral, lambda tensors: quantised(tensors, part, kept))
    with pytest.raises(BadConfig, match=rf"experts\.0\.w1\.weight{part}"):
        from_pretrained(mixtral, model_class=MixtralForCausalLM)


def test_a_scale_beside_a_whole_expert_is_left_over(mixtral: Path) -> None:
    changed(mixtral, lambda tensors: quantised(tensors, "_scale_inv", "float32"))
    _, info = from_pretrained(mixtral, model_class=MixtralForCausalLM, output_loading_info=True)
    assert info["unexpected_keys"] == {
        f"model.layers.0.mlp.experts.{number}.{name}.weight_scale_inv"
        for number in range(12)
        for name in ("w1", "w2", "w3")
    }
