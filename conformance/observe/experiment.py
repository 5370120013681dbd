"""What an experiment with a loaded model gets, and what it gives: pairs of facts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from conformance.cases.case import Case
from conformance.observe.facts import model_of

# Place to two facts, which are equal where the clause is kept.
Pairs = dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Usage:
    """What an experiment can use.

    Attributes:
        case: what is loaded.
        source: a copy of the checkpoint's folder that nothing else has.
        again: loads the case once more, from this folder or another, perhaps with other options;
            returns what the loader returns.
    """

    case: Case
    source: Path
    again: Callable[..., Any]

    def model(self, folder: Path | None = None, **options: Any) -> Any:
        """A model that nothing else has."""
        return model_of(self.again(folder or self.source, **options))


def paired(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> Pairs:
    """Two mappings, name by name."""
    names: Iterable[str] = [*expected, *(name for name in actual if name not in expected)]
    return {name: (expected.get(name, "absent"), actual.get(name, "absent")) for name in names}


def facts_of(tensors: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Name to the facts of a tensor that a copy of the model must share, as one text."""
    facts = ("kind", "persistent", "dtype", "shape", "requires_grad", "storage", "fingerprint")
    return {name: " ".join(str(each[fact]) for fact in facts) for name, each in tensors.items()}


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer, by each of its names."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def copy_of(source: Path, place: Path) -> Path:
    """A copy of the checkpoint that may be written to."""
    folder = place / "checkpoint"
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder
