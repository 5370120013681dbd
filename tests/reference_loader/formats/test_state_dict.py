"""RES-10: a state dict in memory as the source; and what memory a model shares with its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

from reference_loader import from_pretrained, plan
from reference_loader.errors import NothingMatches, ShapeMismatch

LOADERS = [
    pytest.param(from_pretrained, id="reference"),
    pytest.param(LlamaForCausalLM.from_pretrained, id="stock"),
]


@pytest.fixture
def stored(checkpoint: Any) -> dict[str, torch.Tensor]:
    return load_file(checkpoint("llama-f32") / "model.safetensors")


@pytest.fixture
def config(checkpoint: Any) -> Any:
    return LlamaConfig.from_pretrained(checkpoint("llama-f32"))


@pytest.mark.parametrize("model_class", [LlamaForCausalLM, LlamaModel])
@pytest.mark.parametrize("dtype", ["auto", "float16"])
def test_as_stock(stored: Any, config: Any, same_models: Any, model_class: Any, dtype: str) -> None:
    options = {"config": config, "state_dict": stored, "dtype": dtype}
    loaded, info = from_pretrained(
        None, model_class=model_class, output_loading_info=True, **options
    )
    expected, stock_info = model_class.from_pretrained(None, output_loading_info=True, **options)
    same_models(loaded, expected)
    assert info == stock_info


def test_nothing_is_copied(stored: Any, config: Any) -> None:
    model = from_pretrained(None, config=config, state_dict=stored)
    assert model.lm_head.weight.data_ptr() == stored["lm_head.weight"].data_ptr()


def test_the_state_dict_stays_as_it_is(stored: Any, config: Any) -> None:
    before = {key: tensor.clone() for key, tensor in stored.items()}
    from_pretrained(None, config=config, state_dict=stored, dtype="bfloat16")
    assert all(torch.equal(stored[key], tensor) for key, tensor in before.items())


def test_errors_name_the_key(stored: Any, config: Any) -> None:
    with pytest.raises(NothingMatches, match="state_dict"):
        from_pretrained(None, config=config, state_dict={"x": torch.ones(1)})
    stored["model.norm.weight"] = torch.ones(3)
    with pytest.raises(ShapeMismatch, match=r"model\.norm\.weight"):
        from_pretrained(None, config=config, state_dict=stored)


def test_a_plan_says_where_from(stored: Any, config: Any) -> None:
    assert "the state dict given" in str(plan(None, config=config, state_dict=stored))


def test_only_values_are_taken_over(stored: Any, config: Any) -> None:
    """FMT-14, FMT-15: no gradient flag, no order of memory."""
    given = {
        key: torch.nn.Parameter(t.T.contiguous().T if t.ndim == 2 else t, requires_grad=False)
        for key, t in stored.items()
    }
    decided = plan(None, config=config, state_dict=given)
    assert {p.action for p in decided.placements if len(p.stored.shape) == 2} == {"copy"}
    assert {p.action for p in decided.placements if len(p.stored.shape) == 1} == {"view"}
    model = from_pretrained(None, config=config, state_dict=given)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    assert torch.equal(model.lm_head.weight, stored["lm_head.weight"])


@pytest.mark.parametrize("load", LOADERS)
def test_a_model_shares_pages_with_its_files_and_never_writes_to_them(own: Any, load: Any) -> None:
    """MEM: of the dtype of the file, parameters are views of it, mapped copy-on-write."""
    folder = own("llama-f32")
    before = (folder / "model.safetensors").read_bytes()
    model = load(folder)
    lines = Path("/proc/self/maps").read_text().splitlines()
    mapped = [line.split()[0] for line in lines if str(folder / "model.safetensors") in line]
    spans = [tuple(int(end, 16) for end in each.split("-")) for each in mapped]
    for parameter in model.parameters():
        assert any(start <= parameter.data_ptr() < stop for start, stop in spans)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert (folder / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("load", LOADERS)
def test_after_a_cast_nothing_of_the_files_is_held(own: Any, load: Any) -> None:
    """MEM."""
    folder = own("llama-f32")
    model = load(folder, dtype="float16")
    assert model.lm_head.weight.dtype == torch.float16
    assert str(folder / "model.safetensors") not in Path("/proc/self/maps").read_text()
