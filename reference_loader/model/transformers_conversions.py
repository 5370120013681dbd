"""The table of transformers 5: how stored tensors of older layouts become those of its classes.

Source: `transformers.conversion_mapping`, with what a user registered there. Its operations are run
as they are, on tensors without values when a plan is made.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from reference_loader.model.architecture import Converter, Rename


def registered_renames(model: nn.Module) -> list[Rename]:
    """What only renames; empty before release 5."""
    return [_rename(entry) for entry in _entries(model) or () if not hasattr(entry, "operations")]


def registered_converters(model: nn.Module) -> list[Converter]:
    """What also changes tensors; a key is claimed by the first that fits."""
    return [
        Registered(entry, model) for entry in _entries(model) or () if hasattr(entry, "operations")
    ]


def used_entries(
    model: nn.Module, keys: Collection[str], key_mapping: Mapping[str, str] | None
) -> list[Any] | None:
    """The entries that a stored key fits, which `save_pretrained` reverts; None before release 5.

    Args:
        model: the model that was loaded.
        keys: the keys of the checkpoint.
        key_mapping: the user's; left out where two names would become one, or none comes back.
    """
    if not _can_be_reverted(model, keys, key_mapping or {}):
        key_mapping = None
    entries = _entries(model, key_mapping, add_legacy=True)
    kinds: Iterable[str] = keys
    renames = [entry for entry in entries or () if not hasattr(entry, "operations")]
    converters = [entry for entry in entries or () if hasattr(entry, "operations")]
    # Thousands of experts differ by their numbers alone: where no pattern names a number, one of
    # them tells what all of them need.
    patterns = [pattern for entry in entries or () for pattern in entry.source_patterns]
    if not any(re.search(r"(?<![\w\\])\d", pattern) for pattern in patterns):
        kinds = {re.sub(r"(?<=\.)\d+(?=\.)", "0", key): key for key in keys}.values()
    used = set()
    for key in kinds:
        renamed = key
        for entry in renames:
            renamed, pattern = entry.rename_source_key(renamed)
            used |= {id(entry)} if pattern is not None else set()
        fitting = (each for each in converters if each.rename_source_key(renamed)[1] is not None)
        used.add(id(next(fitting, None)))
    return None if entries is None else [entry for entry in entries if id(entry) in used]


def _can_be_reverted(
    model: nn.Module, keys: Collection[str], key_mapping: Mapping[str, str]
) -> bool:
    """Whether the library, which reverts a user's renames, comes back to every stored key."""
    try:
        renames = (_entries(model, key_mapping) or [])[: len(key_mapping)]
        back = [rename.reverse_transform() for rename in reversed(renames)]
    except (ValueError, re.error):
        return False
    for key in keys:
        renamed = key
        for rename in (*renames, *back):
            renamed, _ = rename.rename_source_key(renamed)
        if renamed != key:
            return False
    return True


def _entries(
    model: nn.Module,
    key_mapping: Mapping[str, str] | None = None,
    # The legacy renames are part of the specification (MAP-8): a load has its own.
    add_legacy: bool = False,
) -> list[Any] | None:
    """The entries of the table for a model, in order; None before release 5."""
    try:
        from transformers import conversion_mapping
    except ImportError:
        return None
    table = conversion_mapping.get_model_conversion_mapping
    return list(table(model, key_mapping, add_legacy=add_legacy))


def _rename(entry: Any) -> Rename:
    return lambda key: str(entry.rename_source_key(key)[0])


class Registered:
    """One entry of the table, for one model."""

    def __init__(self, entry: Any, model: nn.Module) -> None:
        self._entry, self._model = entry, model
        self.operations = ", ".join(type(each).__name__ for each in entry.operations)

    def claim(self, key: str) -> tuple[str, str] | None:
        """The first tensor that is made with a stored one, and the pattern that its key fits."""
        renamed, pattern = self._entry.rename_source_key(key)
        return None if pattern is None else (str(renamed), str(pattern))

    def makes(self, first: str) -> list[str]:
        """Every tensor that is made together with the first, by its patterns."""
        patterns = self._entry.target_patterns
        return [first.replace(patterns[0], each) for each in patterns]

    def convert(
        self, first: str, tensors: Mapping[str, Sequence[torch.Tensor]]
    ) -> Mapping[str, torch.Tensor]:
        """Run the operations: pattern to its tensors, in order; name in the model to tensor."""
        entry, model = self._entry, self._model
        made: dict[str, Any] = {pattern: list(each) for pattern, each in tensors.items()}
        for operation in entry.operations:
            made = operation.convert(
                made,
                source_patterns=entry.source_patterns,
                target_patterns=entry.target_patterns,
                full_layer_name=first,
                model=model,
                config=model.config,
                missing_keys=None,
            )
        # The operations name what they made by patterns; the rest of the name is the first's.
        whole = first.replace("*.", "0.")
        before, after = "", ""
        for pattern in made:
            if pattern in whole:
                before, _, after = whole.partition(pattern)
                break
        return {
            f"{before}{pattern}{after}": each[0] if isinstance(each, list) else each
            for pattern, each in made.items()
        }
