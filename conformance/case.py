"""What a case is: recipe (and faults) x load options x the clauses it checks."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CAUSAL = "transformers:LlamaForCausalLM"
BASE = "transformers:LlamaModel"
CLASSIFIER = "transformers:LlamaForSequenceClassification"
AUTO = "transformers:AutoModelForCausalLM"

VALID, ACCEPTABLE, INVALID = "valid", "acceptable", "invalid"


@dataclass(frozen=True)
class Torch:
    """A member of torch, such as a dtype, or what it makes of an argument: `device:cpu`."""

    name: str


@dataclass(frozen=True)
class ConfigObject:
    """A config object, read from the checkpoint and then changed, as a load option."""

    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredStateDict:
    """The tensors of the checkpoint's single file, in memory, as a load option."""


@dataclass(frozen=True)
class EmptyFolder:
    """A folder of its own for each load, as a load option."""


@dataclass(frozen=True)
class Case:
    """One load to be judged.

    Attributes:
        id: readable, and the name everywhere: `tie/head-only`.
        clauses: what it checks; the first that governs a kind of divergence answers for it.
        recipe: the fixture recipe; "" with `folder`.
        faults: damage done to it, in turn.
        model: `MODULE:ATTR`, the model class; "" for the class that the config names.
        options: keyword arguments of the load.
        input_class: `valid`, `acceptable` or `invalid`.
        names: what the message of the error must contain.
        folder: a checkpoint that is there already.
        greedy: whether tokens are generated.
        given: what the loader is given as the source: "" the folder, a name that file in it, None
            nothing.
    """

    id: str
    clauses: tuple[str, ...]
    recipe: str = "llama-f32"
    faults: tuple[str, ...] = ()
    model: str = CAUSAL
    options: Mapping[str, Any] = field(default_factory=dict)
    input_class: str = VALID
    names: tuple[str, ...] = ()
    folder: Path | None = None
    greedy: bool = False
    given: str | None = ""

    def source(self) -> Path:
        """The checkpoint's folder, written now if it has not been."""
        if self.folder is not None:
            return self.folder
        from fixtures.write import materialise

        return materialise(self.recipe, self.faults)

    def given_source(self, folder: Path) -> str | None:
        """The source as the loader gets it."""
        return None if self.given is None else str(folder / self.given)

    def model_class(self) -> type | None:
        """The class to load into; None for the one that the config names.

        Raises:
            ImportError, AttributeError: there is no such class.
        """
        module, _, attribute = self.model.partition(":")
        return getattr(importlib.import_module(module), attribute) if self.model else None


def rejected(identifier: str, clause: str, *names: str, **more: Any) -> Case:
    """Input that is refused with an error that contains `names`; the process is as before."""
    return Case(identifier, (clause, "STA-2"), input_class=INVALID, names=names, **more)


def placed(identifier: str, *clauses: str, device_map: Any, **more: Any) -> Case:
    """A load with a device map."""
    options = {"device_map": device_map} | more.pop("options", {})
    return Case(identifier, clauses, options=options, **more)


def on_disk(identifier: str, *clauses: str, device_map: dict[str, str], **more: Any) -> Case:
    """A load with a device map that has a disk in it, and a folder of its own for that."""
    options = {"offload_folder": EmptyFolder()} | more.pop("options", {})
    return placed(identifier, *clauses, device_map=device_map, options=options, **more)


# Options that cases of several stages share.
IN_MEMORY = {"config": ConfigObject(), "state_dict": StoredStateDict()}
HALF = {"dtype": "float16"}
TWO_SHARDS = "llama-f32-2"
