"""Every causal language model of the installed release: what stock saves, both load alike (CNV).

By rule, without a list of types: a config's own defaults are made small by the names of its fields.
What the release cannot build that small, or not load itself, is left out and counted.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import CONFIG_MAPPING, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

import reference_loader
from conformance.world.messages import quiet
from reference_loader.errors import LoadError

SMALL = {
    **dict.fromkeys(("vocab_size", "max_position_embeddings", "n_positions"), 64),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embed_dim", "intermediate_size"), 32),
    **dict.fromkeys(("ffn_dim", "d_ff", "n_inner", "decoder_ffn_dim", "encoder_ffn_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("decoder_layers", "num_key_value_heads", "num_experts_per_tok"), 2),
    **dict.fromkeys(("num_experts_per_token", "moe_k", "expand"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("moe_num_experts", "mamba_d_state", "state_size", "time_step_rank"), 4),
    **dict.fromkeys(("head_dim", "qk_rope_head_dim", "v_head_dim", "qk_nope_head_dim"), 8),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "n_shared_experts"), 1),
    **{"encoder_layers": 1, "bos_token_id": 1, "eos_token_id": 2, "use_mamba_kernels": False},
}
LARGEST = 5 * 10**6

# Types whose stock load differs from what was saved, and the tensors in which it does.
STOCK_IS_WRONG = {"youtu": {"model.embed_tokens.weight", "lm_head.weight"}}


def small(config: Any) -> Any:
    """The config with small sizes, its parts too."""
    for name, value in SMALL.items():
        if isinstance(vars(config).get(name), int):
            setattr(config, name, value)
    if "pad_token_id" in vars(config):
        config.pad_token_id = 0
    for name in getattr(config, "sub_configs", None) or {}:
        if hasattr(getattr(config, name, None), "to_dict"):
            small(getattr(config, name))
    layers = getattr(config, "num_hidden_layers", 2)
    for name in ("layer_types", "mlp_layer_types", "layers_block_type"):
        if isinstance(vars(config).get(name), list):
            setattr(config, name, vars(config)[name][:layers])
    return config


def built(model_type: str) -> PreTrainedModel:
    """A small model of random weights; skips what cannot be."""
    name = CAUSAL[model_type]
    model_class = getattr(transformers, name if isinstance(name, str) else name[0])
    try:
        with torch.device("meta"):
            empty = model_class(small(CONFIG_MAPPING[model_type]()))
        size = sum(parameter.numel() for parameter in empty.parameters())
        if size > LARGEST:
            pytest.skip(f"{size:,} parameters by this rule")
        torch.manual_seed(0)
        model = model_class(small(CONFIG_MAPPING[model_type]())).eval()
    except Exception as error:
        pytest.skip(f"not built by this rule: {type(error).__name__}: {error}")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    return model  # type: ignore[no-any-return]


def tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {**model.state_dict(), **dict(model.named_buffers())}


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("HYPOTHESIS_PROFILE") != "nightly", reason="make test-nightly")
@pytest.mark.parametrize("model_type", CAUSAL)
def test_it_is_loaded_as_stock_loads_it(model_type: str, tmp_path: Path) -> None:
    model = built(model_type)
    given: dict[str, Any] = {"output_loading_info": True}
    with quiet():
        try:
            model.save_pretrained(tmp_path)
            stock, told = type(model).from_pretrained(tmp_path, **given)
        except Exception as error:
            pytest.skip(f"stock does not load it: {type(error).__name__}: {error}")
        try:
            ours, info = reference_loader.from_pretrained(
                tmp_path, model_class=type(model), **given
            )
        except LoadError as error:
            pytest.fail(f"refused: {error.code}: {error}")
    mine, theirs, saved = tensors(ours), tensors(stock), model.state_dict()
    assert mine.keys() == theirs.keys()
    differing = {
        name
        for name, tensor in theirs.items()
        if (tensor.dtype, tensor.shape) != (mine[name].dtype, mine[name].shape)
        or not torch.equal(tensor.nan_to_num(), mine[name].nan_to_num())
    }
    assert differing == STOCK_IS_WRONG.get(model_type, set())
    assert all(torch.equal(mine[name], saved[name]) for name in differing & saved.keys())
    for field in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert set(info[field]) == set(told[field]), field
    del model, stock, ours
    gc.collect()
