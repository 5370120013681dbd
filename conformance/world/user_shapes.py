"""Model classes of a user with tensors of shapes and kinds that a Llama does not have.

Their names stand in the checkpoints that the fault `every-shape` writes; those of `FusedMlp` are
made of a Llama's, by a conversion that this file registers.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from transformers import LlamaConfig, LlamaForCausalLM

# Rows and columns of a matrix of more than 2 MiB in float32, of which no power of two is a factor:
# a loader that casts in chunks has a ragged tail.
WIDE = (601, 1013)


class EveryShape(nn.Module):
    """Convolutions, counters, a tensor of each number of dimensions, one large and one empty."""

    flags: torch.Tensor
    levels: torch.Tensor
    steps: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv1d = nn.Conv1d(4, 6, 3)
        self.grouped = nn.Conv1d(8, 8, 3, groups=4)
        self.conv2d = nn.Conv2d(3, 5, (2, 3))
        self.counted = nn.BatchNorm1d(4)
        self.scaled = weight_norm(nn.Linear(6, 4, bias=False))
        self.gain = nn.Parameter(torch.tensor(1.0))
        self.nothing = nn.Parameter(torch.empty(0, 4))
        self.deep = nn.Parameter(torch.zeros(2, 1, 3, 1, 2))
        self.wide = nn.Parameter(torch.zeros(WIDE))
        self.register_buffer("flags", torch.zeros(5, dtype=torch.bool))
        self.register_buffer("levels", torch.zeros(2, 3, dtype=torch.uint8))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, like: torch.Tensor) -> torch.Tensor:
        """A number, shape (), that depends on every tensor; in the dtype of `like`."""
        dtype, ones = self.wide.dtype, torch.ones
        parts = (
            self.conv1d(ones(1, 4, 3, dtype=dtype)),
            self.grouped(ones(1, 8, 3, dtype=dtype)),
            self.conv2d(ones(1, 3, 2, 3, dtype=dtype)),
            self.counted(ones(1, 4, dtype=dtype)),
            self.scaled(ones(1, 6, dtype=dtype)),
            self.deep,
            self.wide[-1, -7:],
            self.flags.to(dtype),
            self.levels.to(dtype),
        )
        total = sum((part.sum() for part in parts), self.nothing.sum())
        counted = torch.remainder(self.steps, 7).to(dtype)
        result: torch.Tensor = (self.gain * total + counted).to(like.dtype)
        return result


class WithEveryShape(LlamaForCausalLM):
    """Adds a number to its logits that its module of every shape computes."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.shapes = EveryShape()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the parent, logits plus the number."""
        output = super().forward(*args, **kwargs)
        output.logits = output.logits + self.shapes(output.logits)
        return output


class WithOldWeightNorm(LlamaForCausalLM):
    """Has a layer with torch's weight normalisation of old: its tensors are weight_g, weight_v."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.scaled = nn.utils.weight_norm(nn.Linear(config.hidden_size, 4, bias=False))


class FusedMlp(nn.Module):
    """The MLP of a Llama with gate and up projection in one matrix."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.gate_up_proj = nn.Linear(hidden, 2 * inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """As the MLP of a Llama."""
        gate, up = self.gate_up_proj(states).chunk(2, dim=-1)
        made: torch.Tensor = self.down_proj(nn.functional.silu(gate) * up)
        return made


class FusedMlpConfig(LlamaConfig):
    """A model type of its own, by which every release looks conversions up.

    The fault `unknown-type` writes it into the config.
    """

    model_type = "no-such-model"


class WithFusedMlp(LlamaForCausalLM):
    """A Llama whose checkpoint is converted as its user registered it."""

    config_class = FusedMlpConfig

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        for layer in self.model.layers:
            layer.mlp = FusedMlp(config)
        self.post_init()


if find_spec("transformers.conversion_mapping"):  # from release 5 on
    from transformers.conversion_mapping import register_checkpoint_conversion_mapping
    from transformers.core_model_loading import Concatenate, WeightConverter

    register_checkpoint_conversion_mapping(
        FusedMlpConfig.model_type,
        [
            WeightConverter(
                source_patterns=["mlp.gate_proj.weight", "mlp.up_proj.weight"],
                target_patterns="mlp.gate_up_proj.weight",
                operations=[Concatenate(dim=0)],
            )
        ],
        overwrite=True,
    )
