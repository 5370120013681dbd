"""Tensors that one release has under another name: many absences become a few renames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from conformance.results.name_patterns import NUMBER, grouped
from conformance.results.records import Divergence, Observation

# The kind of a divergence that stands for names that were lost and names that took their place.
RENAMED = "renamed"


def with_renames(
    divergences: Sequence[Divergence], before: Observation, after: Observation
) -> list[Divergence]:
    """The divergences, with one for each pattern of renames in place of its absences.

    A tensor was renamed if another name has its values, and the two names end alike. The names of
    a pattern share what was taken away and what was put in its place: `vision_model.` and nothing.

    Args:
        divergences: between the two observations.
        before, after: of the two releases.
    """
    lost, gained = (
        {d.where for d in divergences if (d.expected, d.actual) == way and d.where in seen}
        for way, seen in (
            (("present", "absent"), before.tensors),
            (("absent", "present"), after.tensors),
        )
    )
    pairs = _pairs(sorted(lost), sorted(gained), before, after)
    patterns: dict[tuple[str, str], list[str]] = {}
    for old, new in pairs.items():
        patterns.setdefault(_replaced(old, new), []).append(old)
    patterns = _over_layers(patterns)
    told = [
        Divergence(
            *(RENAMED, names[0], f"{old}*", f"{new}*"),
            clause=next(d.clause for d in divergences if d.where == names[0]),
            detail=f"{len(names)} tensors, values equal; such as {names[0]}, now {pairs[names[0]]}",
        )
        for (old, new), names in patterns.items()
    ]
    renamed = {*pairs, *pairs.values()}
    return [*told, *(d for d in divergences if not (d.where in renamed and _is_absence(d)))]


def _over_layers(patterns: Mapping[tuple[str, str], list[str]]) -> dict[tuple[str, str], list[str]]:
    """The patterns, those that differ only in the number of a layer drawn together."""
    alike: dict[tuple[str, str], tuple[list[str], list[str], list[str]]] = {}
    for (old, new), names in patterns.items():
        key = (NUMBER.sub("", old, count=1), NUMBER.sub("", new, count=1))
        olds, news, all_names = alike.setdefault(key, ([], [], []))
        olds.append(old)
        news.append(new)
        all_names.extend(names)
    return {(grouped(olds)[0], grouped(news)[0]): names for olds, news, names in alike.values()}


def _is_absence(divergence: Divergence) -> bool:
    return {divergence.expected, divergence.actual} == {"present", "absent"}


def _pairs(
    lost: Sequence[str], gained: Sequence[str], before: Observation, after: Observation
) -> dict[str, str]:
    """Each lost name and the gained name that holds its tensor; of several, that which ends most
    alike."""
    by_tensor: dict[tuple[object, ...], list[str]] = {}
    for name in gained:
        by_tensor.setdefault(_identity(after.tensors[name]), []).append(name)
    pairs: dict[str, str] = {}
    for name in lost:
        offered = by_tensor.get(_identity(before.tensors[name]), [])
        best = max(offered, key=lambda other: _shared_end(name, other), default=None)
        if best is not None and _shared_end(name, best):
            pairs[name] = best
            offered.remove(best)
    return pairs


def _identity(tensor: Mapping[str, object]) -> tuple[object, ...]:
    return (tensor["fingerprint"], tensor["dtype"], tuple(tensor["shape"]))  # type: ignore[arg-type]


def _shared_end(one: str, other: str) -> int:
    """How many of their last parts between dots two names share."""
    count = 0
    for left, right in zip(reversed(one.split(".")), reversed(other.split(".")), strict=False):
        if left != right:
            break
        count += 1
    return count


def _replaced(old: str, new: str) -> tuple[str, str]:
    """The beginnings in which two names differ, up to the last dot before what they share.

    Example:
        >>> _replaced("vision_model.encoder.layers.0.weight", "encoder.layers.0.weight")
        ('vision_model.', '')
    """
    shared = _shared_end(old, new)
    one, other = (".".join(name.split(".")[:-shared]) for name in (old, new))
    return (f"{one}." if one else "", f"{other}." if other else "")
