"""The model types of the installed transformers, and the class that a checkpoint of each is of."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass

# Of several classes of a type, the checkpoint is of the first of these that it has: what is
# published is most often one of them.
PUBLISHED = (
    *("SEQ_TO_SEQ_CAUSAL_LM", "IMAGE_TEXT_TO_TEXT", "MASKED_LM", "CAUSAL_LM", "PRETRAINING"),
    *("SPEECH_SEQ_2_SEQ", "CTC", "ZERO_SHOT_IMAGE_CLASSIFICATION", "IMAGE_CLASSIFICATION"),
)


@dataclass(frozen=True)
class ModelType:
    """A model type of the Auto mappings.

    Attributes:
        name: as `model_type` in config.json, such as `qwen2_moe`.
        classes: name of the Auto mapping to the name of the class that it gives.
    """

    name: str
    classes: dict[str, str]

    @property
    def published(self) -> str:
        """The name of the class that a checkpoint of the type is of, see `PUBLISHED`."""
        for task in PUBLISHED:
            for mapping, found in self.classes.items():
                if mapping == f"MODEL_FOR_{task}_MAPPING_NAMES":
                    return found
        return self.classes.get("MODEL_MAPPING_NAMES") or next(iter(self.classes.values()))


def model_types(patterns: Iterable[str] = ()) -> dict[str, ModelType]:
    """Every model type in every Auto mapping of the installed release, in the mappings' order.

    Args:
        patterns: globs of names; all types if there are none.

    Example:
        >>> model_types(["llama"])["llama"].published
        'LlamaForCausalLM'
    """
    from transformers.models.auto import modeling_auto

    found: dict[str, dict[str, str]] = {}
    for mapping, entries in vars(modeling_auto).items():
        if mapping.startswith("MODEL_") and mapping.endswith("MAPPING_NAMES"):
            for name, classes in entries.items():
                first = classes if isinstance(classes, str) else classes[0]
                found.setdefault(name, {})[mapping] = first
    globs = list(patterns) or ["*"]
    return {
        name: ModelType(name, classes)
        for name, classes in found.items()
        if any(fnmatch.fnmatchcase(name, glob) for glob in globs)
    }
