"""`conformance record` and `verify`: what a load leaves, in a file to compare later loads with."""

from __future__ import annotations

import hashlib
import json
import shlex
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from conformance.cases.case import Case
from conformance.inspect.verify_table import show_verified
from conformance.judge.changes import UNCHANGED, Change, Outcome, change
from conformance.judge.session import Session, header
from conformance.judge.verdict import Judged, blank
from conformance.observe.loaders import stock
from conformance.observe.observe import observe
from conformance.results.compact import compact, expanded
from conformance.results.records import Observation
from conformance.results.runs import now, write_whole
from conformance.world.hub_world import stay_offline

SCHEMA = 1

# The clauses that a change is attributed to; each governs some kind of fact.
CLAUSES = ("MAP-1", "DTY-1", "TIE-1", "INF-1", "INF-2", "INF-3", "OUT-1", "OUT-3", "CFG-8")

# Every release knows the option by this name (DTY-4).
DTYPE = "torch_dtype"

# Files that a load reads, and the part of them that the record's digests cover: all, the header,
# the size.
WHOLE = ("config.json", "generation_config.json", "*.index.json")
HEADERS = ("*.safetensors",)
SIZES = ("*.bin",)
LONGEST_HEADER = 100_000_000


class BadRecord(ValueError):
    """A file is not a record of a load; the message names it and says why."""


class NotLoaded(RuntimeError):
    """The load raises, so there is nothing to record."""


@dataclass(frozen=True)
class Load:
    """What is loaded, and how.

    Attributes:
        checkpoint: as the user wrote it.
        folder: of the checkpoint.
        model: `MODULE:ATTR`, the model class; "" for the class that the config names.
        dtype: as in the option; "" for the release's default.
        trusted: whether the code of the checkpoint may run.
    """

    checkpoint: str
    folder: Path
    model: str = ""
    dtype: str = ""
    trusted: bool = False

    def named(self) -> list[str]:
        """What `verify` must be given again: it imports nothing because a record names it."""
        model = (
            ["--model-class", self.model] if self.model and not of_transformers(self.model) else []
        )
        return [*model, *["--trust-remote-code"] * self.trusted]

    def case(self) -> Case:
        """The recorded load as a case of the suite; it cites no clause: usual facts are noted."""
        options: dict[str, Any] = {DTYPE: self.dtype} if self.dtype else {}
        options |= {"trust_remote_code": True} if self.trusted else {}
        return Case(
            f"own/{self.folder.resolve().name}",
            (),
            "",
            model=self.model,
            folder=self.folder,
            options=options,
            greedy=True,
        )


def record(load: Load, file: Path) -> int:
    """Write what stock leaves of the load in this environment; the number of bytes written.

    Raises:
        NotLoaded: the load raises.
        OSError: the file cannot be written.
    """
    seen = _observed_load(load)
    if seen.exception is not None:
        types, message = seen.exception["types"], seen.exception["message"]
        raise NotLoaded(f"{load.checkpoint} does not load here: {types[0]}: {message}")
    content = {
        "record": "deployment",
        "schema": SCHEMA,
        "made": now(),
        **_record_environment(),
        "checkpoint": {"path": load.checkpoint, "files": digests(load.folder)},
        "options": {"model": load.model, "dtype": load.dtype},
        **compact(seen),
    }
    return _write_record(file, {**content, "digest": digest(content)})


def verify(file: Path, load: Load, recorded: Mapping[str, Any]) -> int:
    """Compare the load with the recorded one, and show the result; 0 if it leaves the same, else 1.

    Args:
        file: for messages.
        load: of `load_of`.
        recorded: of `read`.
    """
    seen = _observed_load(load)
    before, after = recorded["versions"], _record_environment()["versions"]
    found = compared(file, load, expanded(recorded), seen)
    moved = _differing_files(recorded["checkpoint"]["files"], digests(load.folder))
    show_verified(found, {"recorded": before, "now": after}, moved)
    return 0 if found.change == UNCHANGED else 1


def compared(file: Path, load: Load, before: Observation, after: Observation) -> Change:
    """What changed, by the rules of `changes.change`: outputs that move within its tolerance and
    fields that only one release has are no change."""
    case = replace(load.case(), clauses=CLAUSES)
    line = shlex.join(["conformance", "verify", str(file), load.checkpoint, *load.named()])
    sides = [
        Outcome(case, blank(case, Judged("stock", "", name), line), seen)
        for name, seen in (("recorded", before), ("now", after))
    ]
    return change(*sides)


def read(file: Path) -> dict[str, Any]:
    """The content of a whole record of a load.

    Raises:
        BadRecord: it is no record, was truncated or changed, or has another schema.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError as cause:
        raise BadRecord(f"{file} is no record, or was cut off: {cause}") from cause
    if not isinstance(content, dict) or content.get("record") != "deployment":
        raise BadRecord(f"{file} is no record of a deployment")
    if content.get("schema") != SCHEMA:
        raise BadRecord(f"{file} has schema {content.get('schema')!r}, this reads {SCHEMA}")
    held = content.pop("digest", None)
    if held != digest(content):
        raise BadRecord(f"{file} is not as it was written: its digest is {digest(content)}")
    return content


def options_of(recorded: Mapping[str, Any]) -> dict[str, str]:
    """The `checkpoint`, `model` and `dtype` of the load that was recorded.

    Raises:
        BadRecord: one of them is absent or not text.
    """
    try:
        path, options = recorded["checkpoint"]["path"], recorded["options"]
        found = {"checkpoint": path, "model": options["model"], "dtype": options["dtype"]}
    except (KeyError, TypeError) as cause:
        raise BadRecord(f"the record has no {cause}") from cause
    if wrong := [name for name, value in found.items() if not isinstance(value, str)]:
        raise BadRecord(f"the record's {', '.join(wrong)} is not text")
    return found


def of_transformers(model: str) -> bool:
    """Whether `MODULE:ATTR` is a name at the top of transformers, which brings no other code.

    Example:
        >>> of_transformers("transformers:LlamaModel"), of_transformers("os:system")
        (True, False)
    """
    module, _, attribute = model.partition(":")
    return module == "transformers" and attribute.isidentifier()


def digest(content: Mapping[str, Any]) -> str:
    """A digest of a load record's whole content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def digests(folder: Path) -> dict[str, dict[str, Any]]:
    """A record's files: name to size and digest of each that a load may read, weights unread."""
    found: dict[str, dict[str, Any]] = {}
    for globs, sha256 in ((WHOLE, _file_digest), (HEADERS, _header_digest), (SIZES, None)):
        for path in sorted(path for glob in globs for path in folder.glob(glob) if path.is_file()):
            held = {"bytes": path.stat().st_size}
            found[path.name] = held | ({"sha256": sha256(path)} if sha256 else {})
    return found


def _file_digest(path: Path) -> str:
    """The digest of a whole file, for the record of a load."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _header_digest(path: Path) -> str:
    """The digest of a weight file's header and its length, for the record of a load."""
    with path.open("rb") as file:
        measure = file.read(8)
        (length,) = struct.unpack("<Q", measure.ljust(8, b"\0"))
        return hashlib.sha256(measure + file.read(min(length, LONGEST_HEADER))).hexdigest()


def _differing_files(recorded: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The files of the checkpoint that differ from those of the load record."""
    return [name for name in {**recorded, **here} if recorded.get(name) != here.get(name)]


def _observed_load(load: Load) -> Observation:
    """What the load to record or verify leaves."""
    stay_offline()  # the checkpoint is local; no request is needed
    seen = observe(load.case(), stock, measured=True).observation
    return seen if seen.exception is not None else expanded(json.loads(json.dumps(compact(seen))))


def _record_environment() -> dict[str, Any]:
    """The versions and the platform that a load record keeps."""
    kept = header(Session("stock", stock, version("transformers")))
    return {name: kept[name] for name in ("versions", "platform")}


def _write_record(file: Path, content: Mapping[str, Any]) -> int:
    """Write a load record, a line for each nested entry, so that a diff of two is readable."""
    text = (
        "{\n"
        + ",\n".join(f"{json.dumps(k)}: {_json_lines(v)}" for k, v in content.items())
        + "\n}\n"
    )
    write_whole(file, text)
    return len(text)


def _json_lines(value: Any) -> str:
    """A value of a load record as JSON, a line an entry."""
    if isinstance(value, dict) and value:
        held = (f" {json.dumps(name)}: {json.dumps(inner)}" for name, inner in value.items())
        return "{\n" + ",\n".join(held) + "\n}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f" {json.dumps(inner)}" for inner in value) + "\n]"
    return json.dumps(value)
