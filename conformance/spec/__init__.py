"""The specification: numbered clauses that say what a loader must do, as data.

One TOML file a stage lies beside this file. A clause's id is its name everywhere: on the command
line, in records, in test ids.

How a clause is worded. The title is what an engineer would type into a search box. The statement
is one sentence that can be false, subject first, in the words of RFC 2119 for its level: `must`
says MUST or MUST NOT, `should` says SHOULD or SHOULD NOT. `observed` has neither: it says in the
present tense what the newest release does, where no documentation asks for it. The source is a
link with the place behind it in brackets, or "this project: reason" where the decision is ours;
"; " stands between two.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files

LEVELS = ("must", "should", "observed")

STAGES = {
    "RES": "Source and weight file selection",
    "IDX": "Shard index",
    "FMT": "Weight file formats",
    "CFG": "Config",
    "DTY": "Dtype",
    "INI": "Model construction and initialisation",
    "MAP": "Key names",
    "CNV": "Conversions of stored tensors",
    "MIS": "Missing and mismatched weights",
    "TIE": "Tied weights",
    "PLC": "Device map",
    "OFF": "Disk offload",
    "INF": "Loading info",
    "STA": "Process state",
    "MEM": "Memory",
    "OUT": "Outputs",
    "USE": "Use of the loaded model",
    "SAV": "Saving of the loaded model",
}


@dataclass(frozen=True)
class Clause:
    """One promise about loading.

    Attributes:
        id: stable, `STAGE-NUMBER`.
        level: `must` where documentation or correctness requires it, `should` where it is
            recommended, `observed` where the newest release does it.
        title: a few words, of no other clause.
        statement: the promise.
        source: where it comes from.
        kinds: the kinds of divergence that break it.
        general: the kinds it answers for in every case, also in one that does not cite it.
        places: globs of where divergences of its kinds are its own, whatever else a case cites.
        borrowed: kept or broken by a release's own classes, before any loader runs. The reference
            builds the same classes: where both break it alike, the release does.
    """

    id: str
    level: str
    title: str
    statement: str
    source: str
    kinds: tuple[str, ...]
    general: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    borrowed: bool = False

    @property
    def stage(self) -> str:
        """The stage of the specification that the clause belongs to, a key of `STAGES`."""
        return self.id.partition("-")[0]

    @property
    def number(self) -> int:
        """The number of the clause in its stage."""
        return int(self.id.partition("-")[2])


@cache
def clauses() -> Mapping[str, Clause]:
    """Every clause by id, stage by stage, in order of number."""
    found: dict[str, Clause] = {}
    for stage in STAGES:
        text = files(__package__).joinpath(f"{stage}.toml").read_text("utf-8")
        last = 0
        for entry in tomllib.loads(text)["clause"]:
            clause = _clause_of(stage, last, entry)
            last, found[clause.id] = clause.number, clause
    return found


def clause_for(kind: str, cited: tuple[str, ...], where: str = "") -> str:
    """The clause that a divergence of `kind` at `where` breaks in a case that cites `cited`."""
    for clause in map(clauses().__getitem__, (*cited, *clauses())):
        if kind in clause.kinds and any(fnmatchcase(where, glob) for glob in clause.places):
            return clause.id
    for identifier in cited:
        if kind in clauses()[identifier].kinds:
            return identifier
    for clause in clauses().values():
        if kind in clause.general:
            return clause.id
    return cited[0]


def _clause_of(stage: str, last: int, entry: dict[str, object]) -> Clause:
    """A clause of the specification, from its entry in the stage's TOML file.

    Numbers rise and may leave gaps: an id is never given anew, also not that of a clause that was
    withdrawn before it came out.
    """
    fields = {
        key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
    }
    clause = Clause(**fields)  # type: ignore[arg-type]
    prefix, _, number = clause.id.partition("-")
    if prefix != stage or not number.isdigit() or int(number) <= last:
        raise ValueError(f"{stage}.toml: after {stage}-{last} there is a clause {clause.id!r}")
    if clause.level not in LEVELS:
        raise ValueError(f"{stage}.toml: {clause.id} has level {clause.level!r}")
    return clause
