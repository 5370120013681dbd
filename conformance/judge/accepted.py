"""Accepted changes: `--accept FILE`.

[[accept]]
case = "dty/*"            # a glob
reason = "we pass dtype everywhere since March"
clause = "DTY-1"          # each of these three narrows it
kinds = ["dtype", "values"]
where = ["model.*"]
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from conformance.judge.changes import CHANGED, REGRESSED, Change
from conformance.results.records import Divergence


class BadAcceptFile(ValueError):
    """The file is malformed; the message names the file and the entry."""


@dataclass(frozen=True)
class Accept:
    """What one entry accepts.

    Attributes:
        case: a glob of case ids.
        reason: why the change is acceptable.
        clause, kinds, where: what the divergences must be of; empty for any.
    """

    case: str
    reason: str
    clause: str = ""
    kinds: tuple[str, ...] = ()
    where: tuple[str, ...] = ()

    def covers(self, case: str, divergence: Divergence) -> bool:
        """Whether it accepts this difference in this case."""
        return (
            fnmatch.fnmatchcase(case, self.case)
            and self.clause in ("", divergence.clause)
            and (not self.kinds or divergence.kind in self.kinds)
            and any(fnmatch.fnmatchcase(divergence.where, glob) for glob in self.where or ("*",))
        )


def read_accepted(path: Path) -> list[Accept]:
    """The entries of the file.

    Raises:
        OSError: it cannot be read.
        BadAcceptFile: it is not TOML, or an entry has a field too many or too few.
    """
    try:
        entries = tomllib.loads(path.read_text("utf-8")).get("accept", [])
    except ValueError as cause:
        raise BadAcceptFile(f"{path} is not TOML: {cause}") from cause
    return [_entry(path, number, entry) for number, entry in enumerate(entries, start=1)]


def _entry(path: Path, number: int, entry: dict[str, Any]) -> Accept:
    known = {field.name for field in fields(Accept)}
    missing, unknown = {"case", "reason"} - entry.keys(), entry.keys() - known
    if missing or unknown:
        told = [f"lacks {name}" for name in sorted(missing)]
        told += [f"has the unknown field {name}" for name in sorted(unknown)]
        raise BadAcceptFile(f"{path}: [[accept]] number {number} {', '.join(told)}")
    lists = {name: tuple(entry.get(name, ())) for name in ("kinds", "where")}
    return Accept(entry["case"], entry["reason"], entry.get("clause", ""), **lists)


def accept(changes: Iterable[Change], entries: Sequence[Accept]) -> list[Change]:
    """The same changes; those all of whose differences are accepted say why."""
    return [_accepted(change, entries) for change in changes]


def _accepted(change: Change, entries: Sequence[Accept]) -> Change:
    if change.change not in (REGRESSED, CHANGED):
        return change
    covering = [_covering(change, divergence, entries) for divergence in change.divergences]
    reasons = [entry.reason for entry in covering if entry is not None]
    if not reasons or len(reasons) < len(covering):
        return change
    return replace(change, accepted="; ".join(sorted(set(reasons))))


def _covering(change: Change, divergence: Divergence, entries: Sequence[Accept]) -> Accept | None:
    return next((entry for entry in entries if entry.covers(change.case, divergence)), None)


def idle(changes: Iterable[Change], entries: Iterable[Accept]) -> list[Accept]:
    """Entries that match nothing any more, and can go."""
    found = [(change.case, divergence) for change in changes for divergence in change.divergences]
    return [entry for entry in entries if not any(entry.covers(*each) for each in found)]
