"""Divergences we know of in some releases, pinned by kind; `deviations.toml` lists them."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from packaging.specifiers import SpecifierSet

from conformance.records import AGREE, Divergence, Result


@dataclass(frozen=True)
class Deviation:
    """One known difference of stock.

    Attributes:
        id: readable and stable.
        clause: the clause it breaks.
        cases: ids of the cases that show it.
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
        specifier = SpecifierSet(self.releases, prereleases=True)
        return case in self.cases and specifier.contains(release)

    def covers(self, divergence: Divergence) -> bool:
        """Whether it accounts for the divergence."""
        places = self.where or ("*",)
        return divergence.kind in self.kinds and any(
            fnmatch.fnmatchcase(divergence.where, glob) for glob in places
        )


@cache
def deviations() -> tuple[Deviation, ...]:
    """All of `deviations.toml`."""
    text = files(__package__).joinpath("deviations.toml").read_text("utf-8")
    return tuple(_deviation(entry) for entry in tomllib.loads(text).get("deviation", ()))


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
    catalogue, complaints = set(catalogue), []
    agreeing = {result.case for result in results if result.status == AGREE}
    for deviation in among:
        for case in deviation.cases:
            if case not in catalogue:
                complaints.append(f"{deviation.id} names the case {case}, which does not exist")
            elif case in agreeing and deviation.concerns(case, release):
                complaints.append(f"{deviation.id} names {case}, which agrees in {release}")
    return complaints
