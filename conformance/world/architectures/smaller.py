"""A config made small by rule: widths divided by one number, layers and vocabularies cut.

What belongs together is divided alike, so a head's width still divides the model's. Where the
class refuses what came out, the next of `SCALES` is tried.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Fields that are widths, and words by which a field is none after all.
WIDTHS = re.compile(
    r"hidden|_dims?$|^dim|d_model|d_head|embe?d|upsample_groups|ffn|feed_?forward|intermediate|inner|channels|width|units"
    r"|proj\w*_size|_rank$|filters|out_features|pooler|bottleneck|latent_size|codebook_size"
    r"|feature_size|head_size|num_pos_feats|^d_\w+$"
)
NO_WIDTHS = re.compile(
    r"(num|in|audio)_chan|per_layer|position|_id$|index|prob|kernel|image|layers|heads|num_embed"
)
# Fields that count layers, and words by which a field counts something else.
NO_LAYERS = (
    "adapter|feat_extract|shared|rope|insert|window|dense|mtp|nextn|conv|lstm|postnet|out_|skip"
    "|global|head_in|feature_layer"
)
LAYERS = re.compile(rf"^(?!.*({NO_LAYERS})).*(layers?|depth|blocks)$")
# Lists with an entry for each layer, or with the number of layers of each stage.
BY_LAYER = re.compile(r"layer_types|block_types?$|layers_block_type|attention_types|mlp_layer")
BY_STAGE, MOST_STAGES = re.compile(r"depths"), 4
VOCABULARY = re.compile(r"^vocab|vocab(_size)?$")
POSITIONS = re.compile(r"^n_positions$|max_(source_|target_)?position")
EXPERTS, CHOSEN = (
    re.compile(r"^(?!.*shared).*experts$"),
    re.compile(r"experts_per_tok|moe_(top)?k$"),
)
MOST_POSITIONS, MOST_EXPERTS, MOST_CHOSEN = 512, 8, 2

# No width becomes less than this.
LEAST_WIDTH = 4


@dataclass(frozen=True)
class Scale:
    """How small a config becomes: the divisor of widths, the layers and the vocabulary at most."""

    divisor: int
    layers: int
    vocabulary: int


# In the order in which they are tried; the last changes nothing but the positions.
ALL = 10**9
SCALES = (
    *(Scale(divisor, 2, 256) for divisor in (16, 8, 4)),
    *(Scale(divisor, 4, 256) for divisor in (16, 4)),
    *(Scale(16, 2, ALL), Scale(16, ALL, 256)),
    *(Scale(divisor, 2, 1024) for divisor in (2, 1)),
    *(Scale(4, ALL, ALL), Scale(1, ALL, ALL)),
)

# What no rule can know, by model type: fields that the defaults leave out or contradict, set before
# the rule; a dot leads into a part.
FORECAST = {"prediction_length": 4, "context_length": 8}
HEADS = {"head_dim": 16}
EXCEPTIONS: Mapping[str, Mapping[str, Any]] = {
    # A forecast's length is the user's to say.
    **dict.fromkeys(("autoformer", "informer", "time_series_transformer"), FORECAST),
    # Defaults that contradict each other.
    "aya_vision": {"vision_config.num_attention_heads": 12},
    "dbrx": {"attn_config.rope_theta": 10000.0},
    "vitmatte": {"fusion_hidden_sizes": [256, 128, 64, 32]},
    # Sizes that have no default, or None.
    "chameleon": {"vocabulary_map": {"<image>": 5}},
    "emu3": {"vocabulary_map": {"<image>": 5, "<|extra_200|>": 6}},
    "deepseek_ocr2": {"text_config.mlp_layer_types": ["dense", "sparse"]},
    "diffusion_gemma": {
        "text_config.num_experts": 4,
        "text_config.top_k_experts": 2,
        "text_config.moe_intermediate_size": 32,
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "moe_intermediate_size": 32},
    "esm": {"vocab_size": 33, "pad_token_id": 1},
    "granite4_vision": {"deepstack_layer_map": [[0, 0]], "downsample_rate": "4/8"},
    "hiera": {"decoder_hidden_size": 64, "decoder_depth": 1, "decoder_num_heads": 4},
    **dict.fromkeys(
        ("hunyuan_v1_dense", "hunyuan_v1_moe", "hunyuan_vl_text", "ministral"),
        HEADS,
    ),
    "hunyuan_vl": {"text_config.head_dim": 16},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "moonshine_streaming": {"num_key_value_heads": 8},
    "nemotron": {"num_key_value_heads": 8},
    "qwen3_omni_moe": {
        "talker_config.text_config.shared_expert_intermediate_size": 32,
        "talker_config.spatial_merge_size": 2,
    },
    "t5gemma2_encoder": {"text_config.dropout_rate": 0.0},
    "wav2vec2-bert": {"vocab_size": 32},
}


def shrink(config: Any, scale: Scale) -> Any:
    """Make a config, and its parts, as small as the scale says; the config."""
    fields = {name: value for name, value in vars(config).items() if not name.startswith("_")}
    counts = {n: v for n, v in fields.items() if isinstance(v, int) and LAYERS.search(n)}
    for name, value in fields.items():
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            shrink(value, scale)
        elif (smaller := _smaller(name, value, scale, set(counts.values()))) != value:
            setattr(config, name, smaller)
    return config


def _smaller(name: str, value: Any, scale: Scale, layers: set[int]) -> Any:
    """A field's value as the scale makes it; `layers` are the numbers of layers there are."""
    if isinstance(value, int) and not isinstance(value, bool):
        return _smaller_number(name, value, scale)
    if isinstance(value, dict):
        return _smaller_dict(value, scale)
    if isinstance(value, list | tuple) and value:
        return _smaller_list(name, value, scale, layers)
    return value


def _smaller_list(name: str, value: Any, scale: Scale, layers: set[int]) -> Any:
    """A list without the layers that are cut, or with numbers divided alike."""
    if BY_LAYER.search(name) or (len(value) in layers and len(value) > MOST_STAGES):
        kept = value[: scale.layers]
        return type(value)(_smaller(name, each, scale, set()) for each in kept)
    if not all(isinstance(each, int) and not isinstance(each, bool) for each in value):
        return value
    if BY_STAGE.search(name):
        return type(value)(min(each, 2) for each in value)
    divided = [_smaller_number(name, each, scale) for each in value]
    alike = all(a != b for a, b in zip(value, divided, strict=True))
    return type(value)(divided) if alike else value


def _smaller_dict(value: dict[Any, Any], scale: Scale) -> dict[Any, Any]:
    """A dict without the layers that are cut, and the parts of a rotary embedding divided."""
    kept = {k: v for k, v in value.items() if not isinstance(k, int) or k < scale.layers}
    if (sections := kept.get("mrope_section")) and not sum(sections) % scale.divisor:
        divided = [each // scale.divisor for each in sections]
        divided[0] += sum(sections) // scale.divisor - sum(divided)
        kept["mrope_section"] = divided
    return kept


def _smaller_number(name: str, value: int, scale: Scale) -> int:
    """A number's value as the scale makes it: the first rule that knows the name."""
    most = (
        (VOCABULARY, scale.vocabulary),
        (POSITIONS, MOST_POSITIONS),
        (CHOSEN, MOST_CHOSEN),
        (EXPERTS, MOST_EXPERTS),
        (LAYERS, scale.layers),
    )
    for named, limit in most:
        if named.search(name):
            return min(value, limit)
    if name == "pad_token_id":  # a row of the embedding, which others need not be
        return value if value < scale.vocabulary else 0
    divided, rest = divmod(value, scale.divisor)
    is_width = WIDTHS.search(name) and not NO_WIDTHS.search(name)
    return value if not is_width or rest or divided < LEAST_WIDTH else divided
