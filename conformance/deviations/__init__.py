"""Divergences known in some releases, pinned by kind: one TOML file a stage.

`releases` rests on a run of the newest patch of every minor release from 4.47 to 5.24 (`make releases`,
docs/releases.md). It is open at the top where the newest still does it: a release in which a case
agrees makes its entry stale, and that fails the run.
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from packaging.specifiers import SpecifierSet

from conformance.results.records import AGREE, KNOWN, Divergence, Result
from conformance.spec import STAGES


@dataclass(frozen=True)
class Deviation:
    """One known difference of stock.

    Attributes:
        id: readable and stable.
        clause: the clause it breaks.
        cases: ids of the cases that show it; a glob stands for cases some of which do.
        kinds: the kinds of divergence it accounts for, and no others.
        where: globs of the places it accounts for; empty for all.
        releases: a version specifier of transformers.
        reason: what happens and why.
        upstream: the thread about it; "none found" if there is none.
    """

    id: str
    clause: str
    cases: tuple[str, ...]
    kinds: tuple[str, ...]
    releases: str
    reason: str
    upstream: str
    where: tuple[str, ...] = ()

    def concerns(self, case: str, release: str) -> bool:
        """Whether it is known for the case in the release."""
        return self.is_of(release) and any(fnmatch.fnmatchcase(case, glob) for glob in self.cases)

    def is_of(self, release: str) -> bool:
        """Whether it is known in the release at all."""
        return SpecifierSet(self.releases, prereleases=True).contains(release)

    def covers(self, divergence: Divergence) -> bool:
        """Whether it accounts for the divergence."""
        places = self.where or ("*",)
        return divergence.kind in self.kinds and any(
            fnmatch.fnmatchcase(divergence.where, glob) for glob in places
        )


@cache
def deviations() -> tuple[Deviation, ...]:
    """All of them, stage by stage."""
    tables = [files(__package__).joinpath(f"{stage}.toml").read_text("utf-8") for stage in STAGES]
    return tuple(_deviation(entry) for text in tables for entry in tomllib.loads(text)["deviation"])


def _deviation(entry: Mapping[str, object]) -> Deviation:
    fields = {
        key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
    }
    return Deviation(**fields)  # type: ignore[arg-type]


def known(
    divergences: Sequence[Divergence], case: str, release: str, among: Iterable[Deviation]
) -> tuple[Deviation, ...] | None:
    """The deviations that account for every divergence; None if one is left over."""
    concerned = [deviation for deviation in among if deviation.concerns(case, release)]
    used = []
    for divergence in divergences:
        found = next((deviation for deviation in concerned if deviation.covers(divergence)), None)
        if found is None:
            return None
        used.append(found)
    return tuple(dict.fromkeys(used))


def stale(
    results: Iterable[Result], release: str, catalogue: Iterable[str], among: Iterable[Deviation]
) -> list[str]:
    """What is wrong with the list itself: cases that agree after all, or do not exist."""
    catalogue, judged = list(catalogue), {result.case: result for result in results}
    return [
        f"{deviation.id} names {complaint}"
        for deviation in among
        for pattern in deviation.cases
        if (complaint := _complaint(deviation, pattern, release, catalogue, judged))
    ]


def _complaint(
    deviation: Deviation,
    pattern: str,
    release: str,
    catalogue: Sequence[str],
    judged: Mapping[str, Result],
) -> str:
    """What is wrong with one entry; a glob is held to what it covers once all of that ran."""
    covered = fnmatch.filter(catalogue, pattern)
    if not covered:
        return f"the case {pattern}, which does not exist"
    if not deviation.is_of(release) or any(case not in judged for case in covered):
        return ""
    statuses = {judged[case].status for case in covered}
    if pattern in covered:
        return f"{pattern}, which agrees in {release}" if statuses == {AGREE} else ""
    used = any(deviation.id in (judged[case].deviation or "").split(", ") for case in covered)
    idle = statuses <= {AGREE, KNOWN} and not used
    return f"{pattern}, where it accounts for nothing in {release}" if idle else ""
