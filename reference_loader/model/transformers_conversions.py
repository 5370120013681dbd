"""The table of transformers 5: how stored tensors of older layouts become those of its classes.

Source: `transformers.conversion_mapping`, with what a user registered there. Its operations are run
as they are, on tensors without values when a plan is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from reference_loader.model.architecture import Converter, Rename


def registered(model: nn.Module) -> list[Any]:
    """The entries of the table for a model, in order; empty before release 5.

    Each notes whether it fitted a key. The legacy renames are part of the specification (MAP-8).
    """
    try:
        from transformers import conversion_mapping
    except ImportError:
        return []
    return list(conversion_mapping.get_model_conversion_mapping(model, add_legacy=False))


def renames_of(entries: Iterable[Any]) -> list[Rename]:
    """What only renames."""
    return [_rename(entry) for entry in entries if not hasattr(entry, "operations")]


def converters_of(entries: Iterable[Any], model: nn.Module) -> list[Converter]:
    """What also changes tensors; a key is claimed by the first that fits."""
    return [Registered(entry, model) for entry in entries if hasattr(entry, "operations")]


def remember_used(
    model: Any,
    entries: Iterable[Any],
    mapping: Mapping[str, str],
    stored: Iterable[str],
    renamed: Sequence[str],
) -> None:
    """Leave with the model what was used of the table: `save_pretrained` turns it back (SAV-1).

    Args:
        model: what was loaded.
        entries: see `registered`.
        mapping: the caller's `key_mapping`; left out where a save that turns it back would write
            two tensors under one name, or cannot (SAV-7).
        stored: the checkpoint keys.
        renamed: those that have another name in the model.
    """
    try:
        from transformers import conversion_mapping, core_model_loading
    except ImportError:
        return
    if not hasattr(core_model_loading.WeightRenaming, "was_used"):
        return  # an early release 5, which turns back whatever is in its table
    asked = _reversible(core_model_loading.WeightRenaming, mapping, stored) if mapping else []
    legacy = conversion_mapping.get_checkpoint_conversion_mapping("legacy") if renamed else []
    for key in renamed:
        name = key
        for entry in (*asked, *legacy):
            name, _ = entry.rename_source_key(name)  # which notes whether it fitted
    used = [entry for entry in (*asked, *entries, *legacy) if entry.was_used()]
    model._weight_conversions = used


def _reversible(renaming: Any, mapping: Mapping[str, str], keys: Iterable[str]) -> list[Any]:
    """The mapping as entries of the table; none unless their reverse leads back to every key."""
    try:
        renames = [renaming(old, new) for old, new in mapping.items()]
        back = [rename.reverse_transform() for rename in reversed(renames)]
        for key in keys:
            name = key
            for rename in (*renames, *back):
                name, _ = rename.rename_source_key(name)
            if name != key:
                return []
    except (re.error, IndexError, TypeError, ValueError):
        return []  # the table takes fewer expressions than `key_mapping`
    return renames


def _rename(entry: Any) -> Rename:
    return lambda key: str(entry.rename_source_key(key)[0])


class Registered:
    """One entry of the table, for one model."""

    def __init__(self, entry: Any, model: nn.Module) -> None:
        self._entry, self._model = entry, model
        self.operations = ", ".join(type(each).__name__ for each in entry.operations)
        self.patterns: Sequence[str] = list(entry.source_patterns)

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
