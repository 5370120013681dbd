"""Model classes of a user's: what `from_pretrained` must serve as well as the library's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel


class WithBuffer(LlamaForCausalLM):
    """Scales its logits by a buffer that no file holds and only the constructor knows."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        scale = torch.linspace(0.5, 2.0, config.vocab_size, dtype=torch.float32)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the parent, logits times `scale`."""
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * self.scale
        return output


class WithFrozenEmbedding(LlamaForCausalLM):
    """Freezes its embedding in the constructor."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model.embed_tokens.weight.requires_grad = False


class WithHook(LlamaForCausalLM):
    """Sets a plain attribute and a forward hook in the constructor; the hook uses the attribute."""

    def __init__(self, config: LlamaConfig, gain: float = 3.0) -> None:
        super().__init__(config)
        self.gain = gain
        self.model.norm.register_forward_hook(lambda module, inputs, output: output * self.gain)


class WithFloat32Norms(LlamaForCausalLM):
    """Keeps its final norm in float32 under float16, its first norms also under bfloat16."""

    _keep_in_fp32_modules = ["norm"]  # noqa: RUF012  the library's own form
    _keep_in_fp32_modules_strict = ["input_layernorm"]  # noqa: RUF012


class WithAdapter(LlamaForCausalLM):
    """Has a layer of its own that no checkpoint holds, and initialises it itself."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.adapter = nn.Linear(config.hidden_size, config.hidden_size)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is getattr(self, "adapter", None):
            nn.init.normal_(module.weight, mean=0.0, std=2 * self.config.initializer_range)


class WithLayerNorm(LlamaForCausalLM):
    """Normalises with a `LayerNorm`, whose parameters old checkpoints call gamma and beta."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.LayerNorm = nn.LayerNorm(config.hidden_size)


SMALL = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


class SmallConfig(LlamaConfig):
    """A config whose defaults are a tiny model: a loader that makes them up stays harmless."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**(SMALL | fields))


class WithSmallConfig(LlamaForCausalLM):
    """A Llama with `SmallConfig` as its config class."""

    config_class = SmallConfig


class WithSmallConfigBase(LlamaModel):
    """A base Llama with `SmallConfig`; it generates nothing, so it needs no generation config."""

    config_class = SmallConfig
