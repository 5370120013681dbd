"""A mixture of experts in plain torch: our own Llama with experts in the place of its MLPs.

Written from the published architecture, to run in float64 over the stored tensors, each expert by
itself as the checkpoint has it. B batch, S sequence, W hidden size, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_loader.llama import Llama


class Experts(nn.Module):
    """Each position goes through the experts that its router ranks highest (arXiv 2401.04088).

    The router's softmax is over the chosen ones alone.
    """

    def __init__(self, stored: Mapping[str, Tensor], number: int, chosen: int) -> None:
        super().__init__()
        self.router = stored["gate.weight"]
        self.matrices = [
            [stored[f"experts.{expert}.{name}.weight"] for name in ("w1", "w2", "w3")]
            for expert in range(number)
        ]
        self.chosen = chosen

    def forward(self, states: Tensor) -> Tensor:
        """(B, S, W) to (B, S, W)."""
        scores, ranked = (states @ self.router.T).topk(self.chosen, dim=-1)
        shares = torch.zeros(*states.shape[:-1], len(self.matrices), dtype=states.dtype)
        shares.scatter_(-1, ranked, scores.softmax(dim=-1))
        made = torch.zeros_like(states)
        for number, (gate, down, up) in enumerate(self.matrices):
            inner = functional.silu(states @ gate.T) * (states @ up.T)
            made += shares[..., number, None] * (inner @ down.T)
        return made


def mixtral(config: Mapping[str, Any], stored: Mapping[str, Tensor]) -> Llama:
    """A Mixtral in float64.

    Args:
        config: config.json.
        stored: the tensors of the checkpoint, in its published layout.
    """
    exact = {key: tensor.double() for key, tensor in stored.items()}
    model = Llama.from_config({**config, "model_type": "llama"}).double()
    left = {key: t for key, t in exact.items() if ".block_sparse_moe." not in key}
    for number, layer in enumerate(model.model.layers):
        prefix = f"model.layers.{number}.block_sparse_moe."
        own = {key.removeprefix(prefix): t for key, t in exact.items() if key.startswith(prefix)}
        layer.mlp = Experts(own, config["num_local_experts"], config["num_experts_per_tok"])
    model.load_state_dict(left)
    return model
