"""Model classes of a user, which `from_pretrained` must load as well as the library's own."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel, LlamaPreTrainedModel

from conformance_fixtures.faults.folder_layout import NEWER


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


class WithLayerNormInside(LlamaForCausalLM):
    """Has the `LayerNorm` in its base model."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model.LayerNorm = nn.LayerNorm(config.hidden_size)


class WithWeightNorm(LlamaForCausalLM):
    """Has a layer with torch's weight normalisation."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.scaled = weight_norm(nn.Linear(config.hidden_size, 4, bias=False))


class Counter(nn.Module):
    """Keeps state that is neither parameter nor buffer, by torch's `get_extra_state`."""

    def __init__(self) -> None:
        super().__init__()
        self.state = torch.ones(2)

    def get_extra_state(self) -> torch.Tensor:
        """What `state_dict` stores under `_extra_state`."""
        return self.state

    def set_extra_state(self, state: Any) -> None:
        """Restores it."""
        self.state = state

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits times the sum of the state; in the wider dtype of the two."""
        return logits * self.state.sum(0, keepdim=True)


class WithExtraState(LlamaForCausalLM):
    """Multiplies its logits by the state of a `Counter`."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.counter = Counter()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the parent, logits times the state."""
        output = super().forward(*args, **kwargs)
        output.logits = self.counter(output.logits)
        return output


class SilentOnMissing(LlamaForCausalLM):
    """Ignores a missing head (`_keys_to_ignore_on_load_missing`)."""

    _keys_to_ignore_on_load_missing = [r"lm_head\.\w+"]  # noqa: RUF012  the library's own form


class SilentOnUnexpected(LlamaForCausalLM):
    """Ignores certain unexpected keys (`_keys_to_ignore_on_load_unexpected`)."""

    _keys_to_ignore_on_load_unexpected = [r"layers\.\d+\.extra"]  # noqa: RUF012


class WithOddShapes(LlamaForCausalLM):
    """Has a parameter without a dimension, one without an element, and a buffer that counts."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.gain = nn.Parameter(torch.tensor(1.0))
        self.nothing = nn.Parameter(torch.empty(0, 4))
        self.register_buffer("steps", torch.tensor(0))


class WithOwnBuffers(LlamaForCausalLM):
    """Has persistent buffers: one made in float32, one in the default dtype, one of integers."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.register_buffer("exact", torch.zeros(4, dtype=torch.float32))
        self.register_buffer("plain", torch.zeros(4))
        self.register_buffer("steps", torch.zeros(2, dtype=torch.int64))


class WithTwin(LlamaForCausalLM):
    """Ties a second output layer to its embedding in the constructor, and declares it nowhere."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.twin = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.twin.weight = self.model.embed_tokens.weight


class Overtaken(LlamaForCausalLM):
    """Replaces the weights of its folder by newer ones while it is built."""

    def __init__(self, config: LlamaConfig) -> None:
        newer = Path(config.name_or_path, NEWER)
        if newer.is_file():
            newer.replace(newer.with_name("model.safetensors"))
        super().__init__(config)


class OwnError(Exception):
    """What the classes below raise: not an error of a loader, and not a builtin one."""


class FailsInConstructor(LlamaForCausalLM):
    """Raises after its modules are made."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        raise OwnError(f"the constructor of {type(self).__name__}")


class Interrupted(LlamaForCausalLM):
    """The user presses Ctrl-C once its modules are made."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        signal.raise_signal(signal.SIGINT)


class FailsInInitWeights(LlamaForCausalLM):
    """Raises where its missing head is initialised once it is built; has drawn a number by then."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.built = True

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if getattr(self, "built", False) and module is self.lm_head:
            torch.rand(1)
            raise OwnError(f"_init_weights of {type(self).__name__}")


class FailsInEval(LlamaForCausalLM):
    """Raises when it is switched to evaluation, which is after the weights are loaded."""

    def train(self, mode: bool = True) -> Any:
        """Raises for `mode=False`, which is what `eval` asks for."""
        if not mode:
            raise OwnError(f"train of {type(self).__name__}")
        return super().train(mode)


class WithSeveralBuffers(LlamaForCausalLM):
    """Has buffers that no file holds: integers, booleans, seeded noise, and None."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        noise = torch.randn(8, generator=torch.Generator("cpu").manual_seed(7), device="cpu")
        self.register_buffer("places", torch.arange(8), persistent=False)
        self.register_buffer("mask", torch.ones(4, 4).tril().bool(), persistent=False)
        self.register_buffer("noise", noise, persistent=False)
        self.register_buffer("nothing", None, persistent=False)


class WithPersistentBuffer(LlamaForCausalLM):
    """Scales its logits by a buffer that files hold; the constructor initialises it."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        scale = torch.linspace(0.5, 2.0, config.vocab_size, dtype=torch.float32)
        self.register_buffer("scale", scale)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the parent, logits times `scale`."""
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * self.scale
        return output


class WithBufferInside(LlamaForCausalLM):
    """Its first layer has a persistent buffer under the key `extra.weight`."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        extra = nn.Module()
        extra.register_buffer("weight", torch.zeros(4, 4))
        self.model.layers[0].extra = extra


class WithMarkedWeight(LlamaForCausalLM):
    """Sets an attribute on a parameter and two hooks that use it."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        norm = self.model.norm
        norm.weight.gain = 3.0
        norm.register_forward_pre_hook(lambda module, inputs: (inputs[0] * module.weight.gain,))
        norm.register_forward_hook(lambda module, _, output: output * module.weight.gain)


class Marked(nn.Parameter):
    """A parameter class of a user."""


class WithOwnParameterClass(LlamaForCausalLM):
    """The weight of its final norm is a `Marked`."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model.norm.weight = Marked(self.model.norm.weight.data)


class WithTransposedHead(LlamaForCausalLM):
    """Makes the weight of its head as the transpose of a matrix."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        matrix = torch.zeros(config.hidden_size, config.vocab_size)
        self.lm_head.weight = nn.Parameter(matrix.t())


class WithNotedMemory(LlamaForCausalLM):
    """Notes in its config the devices of its base model's weights after construction."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        places = sorted({str(parameter.device) for parameter in self.model.parameters()})
        config.weights_were_on = places


class WithoutPostInit(LlamaPreTrainedModel):
    """Does not call `post_init`, which the documentation of custom models requires."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model = LlamaModel(config)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the base model."""
        return self.model(*args, **kwargs)


class WithSkippedBias(LlamaForCausalLM):
    """Has a layer of its own that no checkpoint holds, and initialises all of it but its bias."""

    given_bias = 0.5

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.adapter = nn.Linear(config.hidden_size, config.hidden_size)
        with torch.no_grad():
            self.adapter.bias.fill_(self.given_bias)

    def _init_weights(self, module: nn.Module) -> None:
        if module is getattr(self, "adapter", None):
            nn.init.normal_(module.weight, mean=0.0, std=2 * self.config.initializer_range)
        else:
            super()._init_weights(module)


class WithRescaling(LlamaForCausalLM):
    """Divides a weight in `_init_weights`, as GPT-2 does: correct for a fresh weight only.

    Its head has a bias, which no checkpoint holds: the weight beside it is loaded.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is getattr(self, "lm_head", None):
            with torch.no_grad():
                module.weight /= (2 * self.config.num_hidden_layers) ** 0.5


class WithOwnDraws(LlamaForCausalLM):
    """Draws numbers that it may not need, as Mamba does, and leaves loaded weights unchanged."""

    def _init_weights(self, module: nn.Module) -> None:
        drawn = torch.rand(4)
        if not any(getattr(p, "_is_hf_initialized", False) for p in module.parameters()):
            super()._init_weights(module)
        module.drawn = drawn


SMALL = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


class SmallConfig(LlamaConfig):
    """A config whose defaults are a tiny model: a loader that falls back to them stays cheap."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**(SMALL | fields))


class WithSmallConfig(LlamaForCausalLM):
    """A Llama with `SmallConfig` as its config class."""

    config_class = SmallConfig


class WithSmallConfigBase(LlamaModel):
    """A base Llama with `SmallConfig`; it generates nothing, so it needs no generation config."""

    config_class = SmallConfig
