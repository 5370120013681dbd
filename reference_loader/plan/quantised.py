"""Parts of quantised weights, told by their names: a plain load cannot put them together."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch

from reference_loader.errors import BadConfig
from reference_loader.plan.decisions import Match

# What stands after the parameter's name: compressed-tensors, FP8 by blocks, MXFP4, bitsandbytes.
AFTER = ("_packed", "_scale", "_scale_inv", "_blocks", "_scales", ".absmax", ".quant_map")

# What stands in place of `weight`: GPTQ and AWQ, LLM.int8(), MLX.
INSTEAD = ("qweight", "SCB", "scales")

# A weight that is stored in one of these is whole, whatever stands beside it.
WHOLE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def refuse_quantised(
    matched: Match, lacking: Collection[str], in_the_model: Callable[[str], str]
) -> None:
    """Raise where the parts of a quantised weight are stored and the parameter itself is not.

    A loader that passes them over leaves the parameter at random values, or without its scale.
    They are told by their names: only the quantization config says more, and it is missing.

    Args:
        matched: what is stored, and which tensor of the model it fills.
        lacking: slots that nothing stored fills: no tensor, no conversion, no tie.
        in_the_model: checkpoint key to the slot that it goes into, alone or with others.

    Raises:
        BadConfig: naming the first of the parts (MIS-7).
    """
    parts = {name: _parameter(name) for name in sorted(matched.unexpected) if _parameter(name)}
    stored_as: dict[str, torch.dtype] = {}
    if parts:
        stored_as |= {each.target: each.stored.dtype for each in matched.placements}
        stored_as |= {each.target: each.sources[0].dtype for each in matched.conversions}
    for name, parameter in parts.items():
        slot = in_the_model(parameter)
        if slot in lacking or stored_as.get(slot, torch.float32) not in WHOLE:
            raise BadConfig(
                f"The checkpoint stores {name!r}, a part of a quantised {parameter!r}, but the "
                "config has no `quantization_config`.",
                "Take the config.json that belongs to the weights, or save them dequantised.",
            )


def _parameter(name: str) -> str:
    """The parameter that the name is a part of, if it is one; "" if it is none."""
    for ending in AFTER:
        if name.endswith(ending):
            return name.removesuffix(ending)
    module, _, last = name.rpartition(".")
    return f"{module}.weight" if last in INSTEAD else ""
