"""A model of very many very small parameters: what a tensor costs, whatever its size."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel


class ManySmallConfig(PretrainedConfig):
    """How many linear layers."""

    model_type = "many-small"

    def __init__(self, pairs: int = 1, **fields: Any) -> None:
        super().__init__(**fields)
        self.pairs = pairs


class ManySmall(PreTrainedModel):
    """Linear layers of 8 by 8 in a row."""

    config_class = ManySmallConfig

    def __init__(self, config: ManySmallConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(config.pairs))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: every one of the very many parameters is stored."""
