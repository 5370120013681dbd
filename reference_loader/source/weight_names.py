"""The names of weight files, in the order in which a load looks for them."""

from __future__ import annotations

from reference_loader.errors import BadOptions, UnsafePath
from reference_loader.options import Options
from reference_loader.source.index import leads_outside

# In this order; a single file before an index, safetensors before pickled files (RES-2, RES-3).
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def weight_names(options: Options, named: object = None) -> list[str]:
    """File names, of which the first that exists is loaded (RES-1 to RES-3, RES-7, RES-8, RES-12).

    Args:
        options: `variant`, `use_safetensors`.
        named: the config's `transformers_weights`; if given, the only name.

    Raises:
        BadOptions, UnsafePath: `named` is not a safetensors file, or is outside the folder
            (RES-13).

    Example:
        >>> weight_names(Options(variant="fp16", use_safetensors=True))
        ['model.fp16.safetensors', 'model.safetensors.index.fp16.json']
    """
    if named is not None:
        return [_checked(named)]
    candidates = _candidates(options.use_safetensors)
    return [with_variant(name, options.variant) for name in candidates]


def _checked(named: object) -> str:
    if not isinstance(named, str) or not named.endswith(
        (".safetensors", ".safetensors.index.json")
    ):
        raise BadOptions(
            f"The config's transformers_weights={named!r} does not name a safetensors file.",
            "Set it to a name that ends in .safetensors or .safetensors.index.json.",
        )
    if leads_outside(named):
        raise UnsafePath(
            f"The config's transformers_weights={named!r} points outside the checkpoint folder.",
            "Do not load this checkpoint unless you trust its author.",
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
