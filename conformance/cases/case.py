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

# Where the random generator stands before every load.
SEED = 20_000

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
class ConfigFolder:
    """The path of the folder of another checkpoint, as a load option."""

    recipe: str
    faults: tuple[str, ...] = ()

    def path(self) -> str:
        """The folder, written on the first call."""
        from conformance_fixtures.write import materialise

        return str(materialise(self.recipe, self.faults))


@dataclass(frozen=True)
class StoredStateDict:
    """The tensors of the checkpoint's single file, in memory, as a load option."""


@dataclass(frozen=True)
class SpoiledStateDict:
    """The same, with one entry that is no tensor to load, as a load option.

    Attributes:
        entry: what it is, of `SPOILED`.
        key: the name of the entry.
    """

    entry: str
    key: str = "lm_head.weight"


# What an entry of a state dict may be instead of a tensor, by an expression of the tensor.
SPOILED = {
    "none": "None",
    "list": "tensor.tolist()",
    "array": "tensor.numpy()",
    "meta": 'tensor.to("meta")',
}


@dataclass(frozen=True)
class EmptyFolder:
    """A folder of its own for each load, as a load option."""


@dataclass(frozen=True)
class CommitId:
    """The id of the commit that the checkpoint is on the Hub, as a load option."""


@dataclass(frozen=True)
class Failure:
    """A path that the Hub fails to deliver.

    Attributes:
        path: a glob of the paths that fail.
        status: what is answered.
        cut: bytes of the content after which the connection breaks; None to answer `status`.
        times: how often.
    """

    path: str
    status: int = 503
    cut: int | None = None
    times: int = 1000


@dataclass(frozen=True)
class Push:
    """A recipe pushed to `main` while a load is going on.

    Attributes:
        recipe: what is pushed.
        before: a glob of the paths that the Hub answers with it as soon as one is asked for.
        after: a glob of the paths after whose content it is pushed.
    """

    recipe: str
    before: str = ""
    after: str = ""


# Where the config of `OnHub.config` is published.
CONFIG_REPOSITORY = "org/config"

# Within the weights of every fixture, and beyond every other file.
HALF_FILE = 20_000

# What came of a download is kept in whole chunks, so small here that half a file holds some.
CHUNK = 1000


@dataclass(frozen=True)
class OnHub:
    """The checkpoint is a repository on a Hub, and this is what happens there.

    Attributes:
        repository: its id, which is what the loader is given.
        branch: where the checkpoint is pushed to.
        tag: a name for its commit.
        newer: a recipe that is pushed to `main` before the load, and not in the cache.
        push: what is pushed to `main` during the load.
        config: a recipe that is published as `org/config`.
        token: what a reader must send; without it, a repository that is not gated is hidden.
        gated: whether it can be seen without the token.
        cached: globs of the files that the cache holds.
        half: whether the cache holds the part of the weights that came before a download was cut.
        offline: whether the process is in offline mode during the load.
        failures: what the Hub fails to deliver during the load.
    """

    repository: str = "org/tiny"
    branch: str = "main"
    tag: str | None = None
    newer: str = ""
    push: Push | None = None
    config: str = ""
    token: str | None = None
    gated: bool = False
    cached: tuple[str, ...] = ()
    half: bool = False
    offline: bool = False
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class Case:
    """One load to be judged.

    Attributes:
        id: readable, and its name everywhere: `tie/head-only`.
        clauses: what it checks; the first that governs a kind of divergence answers for it.
        recipe: the fixture recipe; "" with `folder`.
        faults: damage done to it, in turn.
        model: `MODULE:ATTR`, the model class; "" for the class that the config names.
        options: keyword arguments of the load.
        input_class: `valid`, `acceptable` or `invalid`.
        names: what the message of the error must contain.
        folder: a checkpoint that is there already.
        greedy: whether tokens are generated.
        new_tokens: how many, at most.
        given: what the loader gets as the source: "" the folder, a name that file in it, None
            nothing; with `hub`, "" the id and anything else as it is.
        hub: the Hub that the checkpoint is loaded from; None for a folder.
        under: what the caller has set when the load begins, by names of `process.SURROUNDINGS`.
        threads: how many such loads run at once.
        copied: whether the load gets a copy of the checkpoint, which its class changes.
        plain: whether the call leaves `output_loading_info` out, as most calls do; others set it.
        device: what it needs, `cpu` or `cuda`; where it loads to is for its options to say.
        rewritten: how the weight files of `folder` are written anew, in a copy of it; "" as is.
        saved: whether the model is saved, and the load that is observed is that of what was saved.
        saved_by: the target, by its file name, that loads the checkpoint of `folder` and saves it;
            the load that is observed is that of what was saved. "" for none.
        unfit: why the checkpoint cannot be judged, whatever loads it; "" if it may be.
        optional: whether a release whose `model` does not know the config has no such case.
        needs: a module; a release without it has no such case.
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
    hub: OnHub | None = None
    under: tuple[str, ...] = ()
    threads: int = 1
    copied: bool = False
    device: str = "cpu"
    new_tokens: int = 6
    plain: bool = False
    rewritten: str = ""
    saved: bool = False
    saved_by: str = ""
    unfit: str = ""
    optional: bool = False
    needs: str = ""

    def keywords(self) -> dict[str, Any]:
        """The keyword arguments of the call, with the loading info unless it is `plain`.

        They are the case's own values: whoever loads copies what a loader could change.
        """
        return {**({} if self.plain else {"output_loading_info": True}), **self.options}

    def source(self) -> Path:
        """The checkpoint's folder, written on the first call."""
        if self.folder is not None and self.rewritten:
            from conformance_fixtures.rewritten import rewritten

            return rewritten(self.folder, self.rewritten)
        if self.folder is not None:
            return self.folder
        from conformance_fixtures.write import materialise

        return materialise(self.recipe, self.faults)

    def given_source(self, folder: Path) -> str | None:
        """The source as the loader gets it."""
        if self.hub is not None:
            return self.given or self.hub.repository
        return None if self.given is None else str(folder / self.given)

    def model_class(self) -> type | None:
        """The class to load into; None for the one that the config names.

        Raises:
            ImportError, AttributeError: there is no such class.
        """
        module, _, attribute = self.model.partition(":")
        return getattr(importlib.import_module(module), attribute) if self.model else None


# What may stand where a file belongs, as the faults of `fixtures` end their names.
NO_FILES = ("is-a-folder", "is-a-loop", "is-a-device")


def rejected(identifier: str, clause: str, *names: str, **more: Any) -> Case:
    """Input that is rejected with an error that contains `names`; the process is unchanged."""
    return Case(identifier, (clause, "STA-2"), input_class=INVALID, names=names, **more)


def placed(identifier: str, *clauses: str, device_map: Any, **more: Any) -> Case:
    """A load with a device map."""
    options = {"device_map": device_map} | more.pop("options", {})
    return Case(identifier, clauses, options=options, **more)


def on_disk(identifier: str, *clauses: str, device_map: Any, **more: Any) -> Case:
    """A load with disk offload in its device map, and an offload folder of its own."""
    options = {"offload_folder": EmptyFolder()} | more.pop("options", {})
    return placed(identifier, *clauses, device_map=device_map, options=options, **more)


# Options that cases of several stages share.
IN_MEMORY = {"config": ConfigObject(), "state_dict": StoredStateDict()}
HALF = {"dtype": "float16"}
TWO_SHARDS = "llama-f32-2"
