"""A plain Llama in torch alone, with which the outputs of loaded models are checked.

Written from the published architecture, for reading and for exactness rather than speed: no cache,
no fused kernels, no buffers. In float64 every step is float64, the rotary tables included, so the
rounding of `Llama.from_config(config).double()` is far below that of the models it checks.

Shapes are written with B batch, S sequence, H heads, G key and value heads, D head size, W hidden
size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class LlamaOutput:
    """The result of one forward, all in the dtype of the parameters.

    Attributes:
        logits: (B, S, V).
        hidden_states: layers + 1 tensors (B, S, W): the embeddings, then the output of each layer,
            the last one after the final norm.
    """

    logits: Tensor
    hidden_states: tuple[Tensor, ...]


@dataclass(frozen=True)
class _Shape:
    """The fields of config.json that the computation depends on, with the published defaults."""

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 32
    head_dim: int = 128
    rms_norm_eps: float = 1e-6
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> _Shape:
        counts = (name for name, kind in cls.__annotations__.items() if kind == "int")
        for name in filter(config.__contains__, counts):
            left_out = config[name] is None and name in ("head_dim", "num_key_value_heads")
            if not left_out and (type(config[name]) is not int or config[name] < 1):
                raise _unsupported(name, config[name])
        _config_number({"rms_norm_eps": cls.rms_norm_eps, **config}, "rms_norm_eps")
        _refuse_unless(config, "model_type", {"llama"}, default="llama")
        _refuse_unless(config, "hidden_act", {"silu", "swish"}, default="silu")
        given = {name: config[name] for name in cls.__dataclass_fields__ if name in config}
        given["head_dim"] = _head_dim(config)
        heads = given.get("num_attention_heads", cls.num_attention_heads)
        if given.get("num_key_value_heads") is None:
            given["num_key_value_heads"] = heads
        if heads % given["num_key_value_heads"]:
            raise _unsupported("num_key_value_heads", given["num_key_value_heads"])
        return cls(**given)


def rope_frequencies(config: Mapping[str, Any]) -> Tensor:
    """The rotary frequencies: the angle per position of each pair of a head's dimensions (INI-1).

    With head size D, base theta and i = 0 … D/2 - 1::

        default  f(i) = theta ** (-2 i / D)
        linear   f(i) / factor
        llama3   with w = 2 pi / f(i), the wavelength, and L the original context length:
                     f(i)                             where w < L / high_freq_factor
                     f(i) / factor                    where w > L / low_freq_factor
                     (1 - s) f(i) / factor + s f(i)   between, where
                     s = (L / w - low_freq_factor) / (high_freq_factor - low_freq_factor)

    Args:
        config: config.json as a dict, with the old field names (`rope_theta`, `rope_scaling`) or
            the new one (`rope_parameters`).

    Returns:
        float64, (D/2,), on the CPU whatever the default device is.

    Raises:
        ValueError: a rope type or a field that is not supported; names it and its value.

    Example:
        >>> rope_frequencies({"hidden_size": 32, "num_attention_heads": 4, "rope_theta": 16.0})
        tensor([1.0000, 0.5000, 0.2500, 0.1250], dtype=torch.float64)
    """
    rope = _rope_fields(config)
    head_dim = _head_dim(config)
    plain = [
        _config_number(rope, "rope_theta") ** (-2 * i / head_dim) for i in range(head_dim // 2)
    ]
    match rope["rope_type"]:
        case "default":
            scaled = plain
        case "linear":
            scaled = [frequency / _config_number(rope, "factor") for frequency in plain]
        case "llama3":
            scaled = [_llama3(frequency, rope) for frequency in plain]
        case other:
            raise _unsupported("rope_type", other)
    return torch.tensor(scaled, dtype=torch.float64, device="cpu")


def _llama3(frequency: float, rope: Mapping[str, Any]) -> float:
    """One frequency, scaled as in Llama 3.1; the formula is in `rope_frequencies`."""
    low, high = _config_number(rope, "low_freq_factor"), _config_number(rope, "high_freq_factor")
    turns = _config_number(rope, "original_max_position_embeddings") * frequency / (2 * math.pi)
    slowed = frequency / _config_number(rope, "factor")
    if turns > high:
        return frequency
    if turns < low:
        return slowed
    share = (turns - low) / (high - low)
    return (1 - share) * slowed + share * frequency


def _rope_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary fields under their new names, from the old or the new place (CFG-1)."""
    name = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    given = config.get(name) or {}
    # There may be one set of parameters a kind of layer.
    if not isinstance(given, Mapping) or any(isinstance(each, Mapping) for each in given.values()):
        raise _unsupported(name, given)
    rope = dict(given)
    for holder in (rope, config):
        if holder.get("partial_rotary_factor") not in (None, 1):
            raise _unsupported("partial_rotary_factor", holder["partial_rotary_factor"])
    rope.setdefault("rope_type", rope.get("type", "default"))
    rope.setdefault("rope_theta", config.get("rope_theta") or 10000.0)
    context = config.get("original_max_position_embeddings") or config.get(
        "max_position_embeddings", 2048
    )
    rope.setdefault("original_max_position_embeddings", context)
    return rope


def _head_dim(config: Mapping[str, Any]) -> int:
    """A Llama head's width D: given, or the hidden size divided by the number of heads."""
    hidden = config.get("hidden_size", _Shape.hidden_size)
    heads = config.get("num_attention_heads", _Shape.num_attention_heads)
    head_dim = config.get("head_dim")
    if head_dim is None:
        if hidden % heads:
            raise _unsupported("num_attention_heads", heads)
        head_dim = hidden // heads
    if head_dim % 2:
        raise _unsupported("head_dim", head_dim)  # rotary embeddings rotate pairs
    return int(head_dim)


def _config_number(fields: Mapping[str, Any], name: str) -> float:
    """A number of a Llama's config; raises if it is none."""
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _unsupported(name, value)
    return float(value)


def _refuse_unless(config: Mapping[str, Any], name: str, supported: set[str], default: str) -> None:
    """Raise if a field of the Llama's config has a value that this class does not compute."""
    value = config.get(name, default)
    if value not in list(supported):  # it may have no hash
        raise _unsupported(name, value)


def _unsupported(name: str, value: object) -> ValueError:
    """The error for a value in a Llama's config that this class does not compute."""
    return ValueError(f"the plain Llama does not support {name} = {value!r}")


def _exact_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of a Llama's sums, exponentials and angles: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def _rotary_tables(config: Mapping[str, Any], states: Tensor) -> tuple[Tensor, Tensor]:
    """A Llama's cosines and sines, each (S, D), as `states` (B, S, W) in dtype and device.

    They are computed in each call: a table that is not stored cannot be loaded wrongly.
    """
    exact = _exact_dtype(states.dtype)
    positions = torch.arange(states.shape[1], device=states.device, dtype=exact)
    frequencies = rope_frequencies(config).to(states.device, exact)
    angles = torch.outer(positions, frequencies)
    angles = torch.cat((angles, angles), dim=-1)  # dimension i is paired with i + D/2
    return angles.cos().to(states.dtype), angles.sin().to(states.dtype)


def _rotate(heads: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate each pair (x, y) of dimensions (i, i + D/2) by its angle; (B, H, S, D) to the same."""
    cosines, sines = tables
    x, y = heads.chunk(2, dim=-1)
    return heads * cosines + torch.cat((-y, x), dim=-1) * sines


class RMSNorm(nn.Module):
    """Divide by the root of the mean square, then scale; (…, W) to the same."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, states: Tensor) -> Tensor:
        exact = states.to(_exact_dtype(states.dtype))
        scale = torch.rsqrt(exact.square().mean(dim=-1, keepdim=True) + self.eps)
        return self.weight * (exact * scale).to(states.dtype)


class Attention(nn.Module):
    """Causal self-attention in which H / G query heads share a key and value head."""

    def __init__(self, shape: _Shape) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        self.shared_by = shape.num_attention_heads // shape.num_key_value_heads
        queries = shape.num_attention_heads * shape.head_dim
        keys = shape.num_key_value_heads * shape.head_dim
        bias = shape.attention_bias
        self.q_proj = nn.Linear(shape.hidden_size, queries, bias=bias)
        self.k_proj = nn.Linear(shape.hidden_size, keys, bias=bias)
        self.v_proj = nn.Linear(shape.hidden_size, keys, bias=bias)
        self.o_proj = nn.Linear(queries, shape.hidden_size, bias=bias)

    def forward(self, states: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        """(B, S, W) to (B, S, W)."""
        queries = _rotate(self._heads(self.q_proj(states)), tables)
        keys = _rotate(self._heads(self.k_proj(states)), tables)
        values = self._heads(self.v_proj(states))
        keys = keys.repeat_interleave(self.shared_by, dim=1)
        values = values.repeat_interleave(self.shared_by, dim=1)
        mixed = _attention_weights(queries, keys) @ values
        joined: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(start_dim=2))
        return joined

    def _heads(self, flat: Tensor) -> Tensor:
        """(B, S, H * D) to (B, H, S, D)."""
        return flat.view(*flat.shape[:2], -1, self.head_dim).transpose(1, 2)


def _attention_weights(queries: Tensor, keys: Tensor) -> Tensor:
    """Causal attention weights: softmax over the position itself and earlier ones; (B, H, S, S)."""
    length, head_dim = queries.shape[-2:]
    scores = queries @ keys.transpose(-1, -2) / math.sqrt(head_dim)
    future = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu(diagonal=1)
    scores = scores.masked_fill(future, -math.inf)
    return scores.softmax(dim=-1, dtype=_exact_dtype(scores.dtype)).to(scores.dtype)


class MLP(nn.Module):
    """SwiGLU: one projection, gated by the SiLU of another; (B, S, W) to the same."""

    def __init__(self, shape: _Shape) -> None:
        super().__init__()
        outer, inner, bias = shape.hidden_size, shape.intermediate_size, shape.mlp_bias
        self.gate_proj = nn.Linear(outer, inner, bias=bias)
        self.up_proj = nn.Linear(outer, inner, bias=bias)
        self.down_proj = nn.Linear(inner, outer, bias=bias)

    def forward(self, states: Tensor) -> Tensor:
        gate = functional.silu(self.gate_proj(states))
        projected: Tensor = self.down_proj(gate * self.up_proj(states))
        return projected


class DecoderLayer(nn.Module):
    """Attention, then the MLP, each on normed states and added to the residual stream."""

    def __init__(self, shape: _Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = MLP(shape)
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)

    def forward(self, states: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        """(B, S, W) to (B, S, W)."""
        states = states + self.self_attn(self.input_layernorm(states), tables)
        states = states + self.mlp(self.post_attention_layernorm(states))
        return states


class Decoder(nn.Module):
    """Everything below the head: embeddings, layers, final norm."""

    def __init__(self, config: Mapping[str, Any], shape: _Shape) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        """int64 (B, S) to the hidden states that `LlamaOutput` describes."""
        states: list[Tensor] = [self.embed_tokens(input_ids)]
        tables = _rotary_tables(self.config, states[0])
        for layer in self.layers:
            states.append(layer(states[-1], tables))
        states[-1] = self.norm(states[-1])
        return tuple(states)


class Llama(nn.Module):
    """A Llama with a language modelling head, its parameters named as in published checkpoints.

    W hidden size, V vocabulary, F intermediate size, H heads, G key and value heads, D head size::

        model.embed_tokens.weight                           (V, W)
        model.layers.N.self_attn.q_proj.weight              (H D, W)   [.bias]
        model.layers.N.self_attn.{k,v}_proj.weight          (G D, W)   [.bias]
        model.layers.N.self_attn.o_proj.weight              (W, H D)   [.bias]
        model.layers.N.mlp.{gate,up}_proj.weight            (F, W)     [.bias]
        model.layers.N.mlp.down_proj.weight                 (W, F)     [.bias]
        model.layers.N.{input,post_attention}_layernorm.weight, model.norm.weight   (W,)
        lm_head.weight                                      (V, W)

    There are no buffers. A new model's parameters have torch's default dtype and default device,
    meta included; the loader decides the dtype of a loaded model.

    Example:
        `folder` contains the checkpoint of a small Llama.

        >>> from reference_loader import from_pretrained
        >>> model = from_pretrained(folder, model_class=Llama, dtype="float64")
        >>> output = model(torch.arange(6).reshape(1, 6))
        >>> output.logits.shape, output.logits.dtype
        (torch.Size([1, 6, 128]), torch.float64)
    """

    base_model_prefix = "model"

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        shape = _Shape.of(config)
        rope_frequencies(config)  # raises for an unsupported rotary field now, not in forward
        self.config: dict[str, Any] = dict(config)
        self.model = Decoder(self.config, shape)
        self.lm_head = nn.Linear(shape.hidden_size, shape.vocab_size, bias=False)
        self._tied = shape.tie_word_embeddings
        self.tie_weights()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Llama:
        """A model of the shape that `config` (config.json as a dict) describes.

        Old (`rope_theta`, `rope_scaling`) and new (`rope_parameters`) field names are read; fields
        that do not change the computation (`torch_dtype`, `dtype`, token ids, …) are ignored.

        Raises:
            ValueError: a field that is not supported; names it and its value. Such are another
                `model_type`, `hidden_act` or `rope_type`, a partial rotation, and numbers of heads
                that do not divide evenly.
        """
        return cls(config)

    def tie_weights(self) -> None:
        """Make the head's weight the Parameter of the embeddings, if the config ties them (TIE-1).

        Call it again after assigning a new Parameter to only one of the two.
        """
        if self._tied:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, input_ids: Tensor) -> LlamaOutput:
        """int64 (B, S) to logits (B, S, V) and hidden states, in the parameters' dtype.

        Positions count from 0; there is no padding and no dropout.
        """
        hidden_states = self.model(input_ids)
        return LlamaOutput(self.lm_head(hidden_states[-1]), hidden_states)

    def greedy(self, input_ids: Tensor, steps: int) -> Tensor:
        """Greedy decoding by a Llama: int64 (B, S) to the next tokens, int64 (B, steps).

        Each step is a whole forward; there is no end-of-sequence token.
        """
        tokens = input_ids
        with torch.no_grad():
            for _ in range(steps):
                likeliest = self(tokens).logits[:, -1].argmax(dim=-1, keepdim=True)
                tokens = torch.cat((tokens, likeliest), dim=-1)
        return tokens[:, input_ids.shape[1] :]
