"""Divergences known in some releases, pinned by kind: one TOML file a stage.

An entry says what it breaks, what it does to its user (`impact`), why (`reason`), and in which
cases, kinds and releases. What differs from release to release stands in `[[deviation.in]]` tables
below it.

`releases` rests on a run of the newest patch of every minor release from 4.47 to 5.24
(`make releases`, docs/releases.md). It is open at the top where the newest still does it: a release
in which a case agrees makes its entry stale, and that fails the run.
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from packaging.specifiers import SpecifierSet

from conformance.results.impacts import IMPACTS
from conformance.results.records import AGREE, KNOWN, Divergence, KnownDeviation, Result
from conformance.spec import STAGES

NONE_FOUND = "none found"

# What the ids of cases on a user's checkpoints begin with, and those on tiny ones of model types.
OWN, ARCH = "own/", "arch/"
EVERY_TYPE = "arch/*"

# Fields of an entry that no `[[deviation.in]]` changes.
ABOUT = ("id", "clause", "impact", "upstream", "test")


@dataclass(frozen=True)
class Range:
    """Some releases in which a deviation shows, and what it shows there.

    Attributes:
        releases: a version specifier of transformers.
        cases: ids of the cases that show it; a glob stands for cases some of which do.
        kinds: the kinds of divergence it accounts for, and no others.
        reason: what happens and why.
        where: globs of the places it accounts for; empty for all.
    """

    releases: str
    cases: tuple[str, ...]
    kinds: tuple[str, ...]
    reason: str
    where: tuple[str, ...] = ()

    def concerns(self, case: str, release: str) -> bool:
        """Whether the deviation is known for the case in the release, within this range.

        A user's checkpoint is in no list of cases: there it is known by clause, kind and place. So
        it is on the tiny checkpoint of a model type. What is wrong with one type is known for it.
        """
        anywhere = case.startswith((OWN, ARCH)) and not self.of_types
        listed = anywhere or any(fnmatch.fnmatchcase(case, each) for each in self.cases)
        return self.is_of(release) and listed

    @property
    def of_types(self) -> bool:
        """Whether the range names model types.

        `arch/*` names none: it stands for what the suite's own checkpoints do not show.
        """
        return all(each.startswith(ARCH) and each != EVERY_TYPE for each in self.cases)

    def is_of(self, release: str) -> bool:
        """Whether the deviation is known in the release at all, within this range."""
        return SpecifierSet(self.releases, prereleases=True).contains(release)

    def covers(self, divergence: Divergence) -> bool:
        """Whether the range of a known deviation accounts for the divergence."""
        places = self.where or ("*",)
        return divergence.kind in self.kinds and any(
            fnmatch.fnmatchcase(divergence.where, glob) for glob in places
        )


@dataclass(frozen=True)
class Deviation:
    """One known difference of stock.

    Attributes:
        id: readable and stable.
        clause: the clause it breaks.
        impact: what it does to its user, one of `IMPACTS`.
        reason: what happens and why; a range may say otherwise.
        ranges: where it shows. Without `[[deviation.in]]` there is one, of the entry's own fields;
            with it there is one for each table, which takes the fields that it leaves out from the
            entry.
        upstream: the thread about it; "none found" if there is none.
        test: the first line of a test of it for transformers itself; "" where the cases say enough.
    """

    id: str
    clause: str
    impact: str
    reason: str
    ranges: tuple[Range, ...]
    upstream: str = NONE_FOUND
    test: str = ""

    @property
    def releases(self) -> str:
        """The version specifiers of a deviation's ranges, for a reader: `==4.51.* or >=5.0`."""
        return " or ".join(dict.fromkeys(each.releases for each in self.ranges))

    @property
    def cases(self) -> tuple[str, ...]:
        """The cases of all ranges of a known deviation."""
        return tuple(dict.fromkeys(case for each in self.ranges for case in each.cases))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of divergence of all ranges of a known deviation."""
        return tuple(dict.fromkeys(kind for each in self.ranges for kind in each.kinds))

    def concerns(self, case: str, release: str) -> bool:
        """Whether the deviation is known for the case in the release."""
        return any(within.concerns(case, release) for within in self.ranges)

    def is_of(self, release: str) -> bool:
        """Whether the deviation is known in the release at all."""
        return any(within.is_of(release) for within in self.ranges)

    def seen(self, within: Range) -> KnownDeviation:
        """What the record of a run keeps of a known deviation."""
        return KnownDeviation(self.id, self.clause, self.impact, within.reason, self.upstream)


@cache
def deviations() -> tuple[Deviation, ...]:
    """All known deviations, stage by stage."""
    tables = [files(__package__).joinpath(f"{stage}.toml").read_text("utf-8") for stage in STAGES]
    return tuple(deviation(entry) for text in tables for entry in tomllib.loads(text)["deviation"])


def deviation(entry: Mapping[str, Any]) -> Deviation:
    """A known deviation, from its entry in the TOML files.

    Raises:
        ValueError: its impact does not exist.
        TypeError: it has a field too many or too few.
    """
    own = dict(entry)
    about = {name: own.pop(name) for name in ABOUT if name in own}
    if about["impact"] not in IMPACTS:
        raise ValueError(f"{about['id']}: there is no impact {about['impact']!r}")
    within = own.pop("in", [{}])
    ranges = tuple(_range_of({**own, **each}) for each in within)
    return Deviation(**about, reason=own["reason"], ranges=ranges)


def _range_of(fields: Mapping[str, Any]) -> Range:
    """A range of a known deviation, from its fields in the TOML files."""
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return Range(**given)


def known(
    divergences: Sequence[Divergence], case: str, release: str, among: Iterable[Deviation]
) -> tuple[KnownDeviation, ...] | None:
    """The deviations that account for the divergences, in order; None if one is left over."""
    concerned = [
        (deviation, within)
        for deviation in among
        for within in deviation.ranges
        if within.concerns(case, release)
    ]
    used = []
    for divergence in divergences:
        found = next(
            (
                each
                for each in concerned
                if each[1].covers(divergence)
                and (
                    not case.startswith((OWN, ARCH))
                    or each[1].of_types
                    or each[0].clause == divergence.clause
                )
            ),
            None,
        )
        if found is None:
            return None
        used.append(found[0].seen(found[1]))
    return tuple(used)


def stale(
    results: Iterable[Result], release: str, catalogue: Iterable[str], among: Iterable[Deviation]
) -> list[str]:
    """The stale deviations, as complaints: their cases agree after all, or do not exist."""
    catalogue, judged = list(catalogue), {result.case: result for result in results}
    complaints = []
    for deviation in among:
        for within in deviation.ranges:
            for pattern in within.cases:
                if pattern.startswith(ARCH):  # which cases there are, the installed release says
                    continue
                covered = {case: judged.get(case) for case in fnmatch.filter(catalogue, pattern)}
                if complaint := _complaint(deviation.id, within, pattern, release, covered):
                    complaints.append(f"{deviation.id} names {complaint}")
    return list(dict.fromkeys(complaints))


def _complaint(
    name: str, within: Range, pattern: str, release: str, covered: Mapping[str, Result | None]
) -> str:
    """A stale deviation's complaint on one pattern; a glob waits until all its cases have run."""
    if not covered:
        return f"the case {pattern}, which does not exist"
    ran = [result for result in covered.values() if result is not None]
    if not within.is_of(release) or len(ran) < len(covered):
        return ""
    statuses = {result.status for result in ran}
    if pattern in covered:
        return f"{pattern}, which agrees in {release}" if statuses == {AGREE} else ""
    used = any(name in (result.deviation or "").split(", ") for result in ran)
    idle = statuses <= {AGREE, KNOWN} and not used
    return f"{pattern}, where it accounts for nothing in {release}" if idle else ""
