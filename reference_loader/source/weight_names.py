"""Which files of a folder may hold the weights, in the order in which they are looked for."""

from __future__ import annotations

from reference_loader.errors import BadOptions, UnsafePath
from reference_loader.options import Options
from reference_loader.source.index import leads_outside

# In this order; a single file before an index, safetensors before pickled files (RES-2, RES-3).
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def weight_names(options: Options, named: str | None = None) -> list[str]:
    """The files that may be the weights, the first that is there wins; see `locate`."""
    if named is not None:
        return [_checked(named)]
    candidates = _candidates(options.use_safetensors)
    return [with_variant(name, options.variant) for name in candidates]


def _checked(named: str) -> str:
    if not named.endswith((".safetensors", ".safetensors.index.json")):
        raise BadOptions(
            f"The config's transformers_weights={named!r} names no safetensors.",
            "It must end in .safetensors or .safetensors.index.json.",
        )
    if leads_outside(named):
        raise UnsafePath(
            f"The config's transformers_weights={named!r} leads out of the folder.",
            "Do not trust this checkpoint.",
        )
    return named


def with_variant(name: str, variant: str | None) -> str:
    """`model.safetensors` of variant `fp16` is `model.fp16.safetensors` (RES-7)."""
    stem, _, extension = name.rpartition(".")
    return name if variant is None else f"{stem}.{variant}.{extension}"


def _candidates(use_safetensors: bool | None) -> tuple[str, ...]:
    if use_safetensors is None:
        return SAFETENSORS + PICKLED
    return SAFETENSORS if use_safetensors else PICKLED
