"""From checkpoint keys to model keys: renames and the base model's prefix."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from reference_loader.errors import BadOptions
from reference_loader.model.architecture import Converter, Rename

# Names that older PyTorch and TensorFlow checkpoints carry (MAP-8); tried in this order.
LEGACY = {
    "LayerNorm.gamma": "LayerNorm.weight",
    "LayerNorm.beta": "LayerNorm.bias",
    ".weight_g": ".parametrizations.weight.original0",
    ".weight_v": ".parametrizations.weight.original1",
}


class Claimed(NamedTuple):
    """A checkpoint key that a converter claims: the first tensor it makes, the pattern it fits."""

    target: str
    pattern: str
    converter: Converter


class Names(NamedTuple):
    """Checkpoint key to its name in the model, and the keys that converters claim (CNV-1).

    A name that the model does not have is one of an unexpected key.
    """

    targets: dict[str, str]
    claimed: dict[str, Claimed]


def resolve(
    keys: Iterable[str],
    model_keys: Collection[str],
    prefix: str,
    renames: Iterable[Rename] = (),
    converters: Sequence[Converter] = (),
) -> Names:
    """The name in the model of every checkpoint key.

    Args:
        keys: checkpoint keys.
        model_keys: the keys of the model's state dict.
        prefix: the attribute under which a head model keeps its base model; "" for none.
        renames: applied in turn, before the prefix is added or taken away.
        converters: the first that claims a renamed key has it.
    """
    registered = list(renames)
    changing = [*registered, *map(_legacy, LEGACY)]

    def is_own(key: str) -> bool:
        """As nearly every key is: found in a table, and no rename has a say."""
        return key in model_keys and not registered and not any(old in key for old in LEGACY)

    found = Names({}, {})
    for key in keys:
        if is_own(key) and not converters:
            found.targets[key] = key
            continue
        target, claimed = _resolve(key, model_keys, prefix, changing, converters)
        if claimed is None:
            found.targets[key] = target
        else:
            found.claimed[key] = Claimed(target, *claimed)
    return found


def in_the_model(
    key: str,
    model_keys: Collection[str],
    prefix: str,
    renames: Iterable[Rename],
    converters: Sequence[Converter],
) -> str:
    """The tensor of the model that a checkpoint key goes into, alone or with others (CNV-1)."""
    found = resolve([key], model_keys, prefix, renames, converters)
    return found.claimed[key].target if key in found.claimed else found.targets[key]


def mapping_renames(key_mapping: Mapping[str, str] | None) -> list[Rename]:
    """`key_mapping` as renames: each a regular expression and its replacement (MAP-6)."""
    if not isinstance(key_mapping, Mapping | None):
        raise BadOptions(
            f"key_mapping is a {type(key_mapping).__name__}, not a mapping.",
            "Pass a dict of regular expressions and their replacements.",
        )
    return [_checked(pattern, into) for pattern, into in (key_mapping or {}).items()]


def ignored(keys: Iterable[str], patterns: Iterable[str]) -> set[str]:
    """The keys that some regular expression of `patterns` finds."""
    compiled = [re.compile(pattern) for pattern in patterns]
    return {key for key in keys if any(pattern.search(key) for pattern in compiled)}


def _resolve(
    key: str,
    model_keys: Collection[str],
    prefix: str,
    renames: list[Rename],
    converters: Sequence[Converter],
) -> tuple[str, tuple[str, Converter] | None]:
    """The name of a key in the model, and the pattern and the converter that claim it."""
    renamed = key
    for rename in renames:
        renamed = rename(renamed)
    claimed: tuple[str, Converter] | None = None
    for converter in converters:
        if claim := converter.claim(renamed):
            renamed, claimed = claim[0], (claim[1], converter)
            break
    for candidate in _candidates(renamed, prefix):
        if candidate in model_keys:
            return candidate, claimed
    # What leads nowhere is taken back only where the key is the model's own.
    return (key, None) if key in model_keys else (renamed, claimed)


def common_prefix(keys: Collection[str], model_keys: Collection[str], prefix: str) -> str:
    """What all keys begin with and the model's do not, such as `_orig_mod.` of a compiled model.

    "" where some key does not begin with it, or where one without it is still not the model's.
    """
    first, last = min(keys, default=""), max(keys, default="")
    for end in [n + 1 for n, letter in enumerate(first) if letter == "."]:
        rest = [key[end:] for key in keys]
        if not last.startswith(first[:end]):
            break
        if any(name in model_keys for key in rest for name in _candidates(key, prefix)):
            return first[:end]
    return ""


def _candidates(key: str, prefix: str) -> tuple[str, ...]:
    return (key, key.removeprefix(f"{prefix}."), f"{prefix}.{key}") if prefix else (key,)


def _checked(pattern: object, into: object) -> Rename:
    """One entry of `key_mapping` as a rename."""
    if not isinstance(pattern, str) or not isinstance(into, str):
        raise BadOptions(
            f"key_mapping contains {pattern!r}: {into!r}; a pattern and its replacement are text.",
            "Pass a dict of regular expressions and their replacements.",
        )
    try:
        compiled = re.compile(pattern)
        compiled.sub(into, "")  # reads the replacement, whether or not anything is found
    except (re.error, IndexError) as cause:
        raise BadOptions(
            f"key_mapping contains an invalid regular expression, {pattern!r}: {into!r}: {cause}.",
            "Escape the characters that are meant literally; name groups that are there.",
        ) from cause
    return lambda key: compiled.sub(into, key, count=1)


def _legacy(old: str) -> Rename:
    return lambda key: key.replace(old, LEGACY[old])
