"""Mutants of stage CNV: conversions."""

from __future__ import annotations

import torch

from conformance.mutants.planting import Load, coming_out


def _experts(load: Load) -> dict[str, torch.Tensor]:
    """The merged tensors of the first layer's experts; none before release 5."""
    parameters = load.model.named_parameters()
    return {name.rpartition(".")[2]: p for name, p in parameters if ".experts." in name}


@coming_out("CNV-1", "cnv/mixtral")
def experts_in_order_of_name(load: Load) -> None:
    """Expert 10 comes after expert 1."""
    for merged in _experts(load).values():
        order = sorted(range(len(merged)), key=str)
        merged.copy_(merged[order])


@coming_out("CNV-1", "cnv/mixtral")
def gate_and_up_swapped(load: Load) -> None:
    """The up projection comes before the gate."""
    merged = _experts(load)["gate_up_proj"]
    merged.copy_(torch.cat(merged.chunk(2, dim=1)[::-1], dim=1))


@coming_out("CNV-1", "cnv/mixtral")
def gate_and_up_interleaved(load: Load) -> None:
    """Rows of gate and up projection alternate."""
    merged = _experts(load)["gate_up_proj"]
    merged.copy_(torch.stack(merged.chunk(2, dim=1), dim=2).flatten(1, 2))


@coming_out("CNV-1", "cnv/mixtral-sharded")
def experts_transposed(load: Load) -> None:
    """The square matrices are transposed."""
    merged = _experts(load)["gate_up_proj"]
    merged.copy_(merged.transpose(1, 2).clone())


@coming_out("CNV-1", "cnv/mixtral-sharded")
def last_expert_fresh(load: Load) -> None:
    """The last expert keeps its initial values."""
    _experts(load)["down_proj"][-1].normal_(std=0.02)


@coming_out("CNV-1", "cnv/mixtral-cast")
def experts_rounded_twice(load: Load) -> None:
    """An expert is rounded to float16 on the way."""
    merged = _experts(load)["gate_up_proj"]
    merged[0] = merged[0].float().half().to(merged.dtype) * (1 + 2.0**-7)


@coming_out("CNV-1", "cnv/mixtral-state-dict")
def experts_shifted(load: Load) -> None:
    """Each expert has the place of the next one."""
    for merged in _experts(load).values():
        merged.copy_(merged.roll(1, dims=0))
