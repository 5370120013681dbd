"""The cases on a user's checkpoints: every way of loading one that applies to it, by rule."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conformance.cases.case import Case, EmptyFolder, Torch
from conformance.cases.folder_kinds import no_checkpoint, quantised

# What a load of a sound checkpoint is held to. Absolute checks run for those that are cited.
CLAUSES = ("MAP-1", "DTY-1", "INF-1", "INF-2", "INF-3", "OUT-1", "OUT-3", "CFG-8")
CAST = ("DTY-3", "DTY-7", "MAP-1", "OUT-1")

# The heads that the Auto classes give a base model. Which of them a checkpoint can have, the
# installed release says: a class that does not know the config is no case (`Case.optional`).
HEADS = {
    "base": "AutoModel",
    "causal-lm": "AutoModelForCausalLM",
    "seq2seq-lm": "AutoModelForSeq2SeqLM",
    "masked-lm": "AutoModelForMaskedLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "image-classification": "AutoModelForImageClassification",
    "image-text-to-text": "AutoModelForImageTextToText",
}
DTYPES = ("float32", "bfloat16", "float16")

# The folder with its weights written anew, see `conformance_fixtures.rewritten`; larger checkpoints
# are left as they are, since each form is a copy.
REWRITTEN = ("sharded", "one-file", "missing-key", "stray-key")
LARGEST_REWRITTEN = 2 * 2**30
THREADS = 8


@dataclass(frozen=True)
class Own:
    """The user's checkpoints, and how they are loaded.

    Attributes:
        folders: one a checkpoint.
        model: `MODULE:ATTR`, the user's model class; "" for the class that the config names.
        trusted: whether the code of the checkpoints may run.
        path: the folder that `model` is imported from; "" without one.
        savers: targets, by their file names, that save the checkpoints for the others to load.
    """

    folders: tuple[Path, ...] = ()
    model: str = ""
    trusted: bool = False
    path: str = ""
    savers: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """The options that say the same on a command line."""
        model = ["--model-class", self.model] if self.model else []
        return [*model, *["--trust-remote-code"] * self.trusted]

    def to_json(self) -> str:
        """As text, for another process."""
        folders = [str(folder.resolve()) for folder in self.folders]
        return json.dumps({**vars(self), "folders": folders})

    @classmethod
    def from_json(cls, text: str) -> Own:
        """Of what `to_json` wrote."""
        fields = json.loads(text)
        folders, savers = tuple(map(Path, fields["folders"])), tuple(fields["savers"])
        return cls(**{**fields, "folders": folders, "savers": savers})


NO_CHECKPOINT = Own()


def own_cases(own: Own) -> list[Case]:
    """Every case that applies to the user's checkpoints, each named after its folder."""
    names = [_name(folder.resolve()) for folder in own.folders]
    numbered = [
        f"{name}-{names[: i + 1].count(name)}" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]
    trust = {"trust_remote_code": True} if own.trusted else {}
    return [
        replace(case, id=f"own/{name}/{case.id}", options={**case.options, **trust})
        for folder, name in zip(own.folders, numbered, strict=True)
        for case in _forms(folder, own.model, own.savers)
    ]


def _name(folder: Path) -> str:
    """The folder's, or the repository's that the folder is a snapshot of in the Hub's cache."""
    repository = folder.parents[1].name if folder.parent.name == "snapshots" else ""
    return repository.rpartition("--")[2] or folder.name


def _forms(folder: Path, model: str, savers: tuple[str, ...]) -> Iterator[Case]:
    """The ways of loading one checkpoint; the id of each is the form alone."""

    def form(identifier: str, clauses: tuple[str, ...] = CLAUSES, **fields: Any) -> Case:
        given: dict[str, Any] = {"model": model, "folder": folder} | fields
        return Case(identifier, clauses, "", **given)

    if reason := no_checkpoint(folder):
        yield form("as-saved", unfit=reason)
        return
    yield form("as-saved", greedy=True)
    if quantised(folder):
        return
    yield form("auto", options={"dtype": "auto"})
    for dtype in DTYPES:
        yield form(dtype, CAST, options={"dtype": Torch(dtype)})
    yield form("device-map-cpu", options={"device_map": "cpu"})
    yield form(
        "disk-offload",
        ("OFF-1", "INF-1"),
        options={"device_map": {"": "disk"}, "offload_folder": EmptyFolder()},
    )
    yield form("threads", ("STA-3",), threads=THREADS)
    yield form("saved-again", saved=True)
    if _weights_bytes(folder) <= LARGEST_REWRITTEN and _whole(folder):
        for saver in savers:
            yield form(f"saved-by-{saver}", options={"dtype": "auto"}, saved_by=saver)
        for how in REWRITTEN:
            yield form(how, rewritten=how)
    # A class of the user's has its own head; the Auto classes do not know it.
    for name, auto in {} if model else HEADS.items():
        if _may_have(folder, name):
            yield form(name, model=f"transformers:{auto}", optional=True)


def _may_have(folder: Path, head: str) -> bool:
    """Whether the config says what the head needs, as far as the file alone tells."""
    config = _config(folder)
    encoder_decoder = config.get("is_encoder_decoder") is True
    return head not in ("causal-lm", "masked-lm") if encoder_decoder else head != "seq2seq-lm"


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _whole(folder: Path) -> bool:
    """Whether every shard that an index names is there."""
    named: set[str] = set()
    for index in folder.glob("*.index.json"):
        try:
            named |= set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        except (ValueError, TypeError, KeyError, AttributeError):
            return False  # the load as it is saved tells what is wrong with it
    return all((folder / name).is_file() for name in named)


def _weights_bytes(folder: Path) -> int:
    files = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    return sum(file.stat().st_size for file in files if file.is_file())
