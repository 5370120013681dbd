"""An observation as compact JSON, and back: facts that many tensors share are written once.

Left out are the facts that only absolute checks read, and those of the process."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from conformance.results.name_patterns import grouped
from conformance.results.records import Observation, finite

# Facts that differ from tensor to tensor; many tensors share the others.
OWN = ("fingerprint", "storage")

# Fields that are kept unchanged.
WHOLE = ("info", "config", "generation_config", "device_map", "outputs", "accuracy")

_NUMBERS = re.compile(r"\{(\d+(?:\.\.\d+)?(?:,\d+(?:\.\.\d+)?)*)\}")


def compact(seen: Observation) -> dict[str, Any]:
    """A load's observation without process, seconds and memory, compact, as data for JSON."""
    kept = {name: finite(getattr(seen, name)) for name in WHOLE}
    return {
        "tensors": list(_tensors_by_facts(seen.tensors)),
        "tied": {n: facts["storage"] for n, facts in seen.tensors.items() if facts["storage"] != n},
        "modules": list(_modules_by_class(seen.modules)),
        **kept,
        "accuracy": _finite_accuracy(seen.accuracy),
    }


def expanded(data: Mapping[str, Any]) -> Observation:
    """The observation that was made compact.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: the data is not a compact observation.
    """
    tensors: dict[str, dict[str, Any]] = {}
    for group in data["tensors"]:
        shared = {name: value for name, value in group.items() if name != "fingerprints"}
        for pattern, fingerprints in group["fingerprints"].items():
            for name, own in zip(names_of(pattern), fingerprints.split(), strict=True):
                storage = data["tied"].get(name, name)
                tensors[name] = shared | {"storage": storage, "fingerprint": own}
    modules = {
        name: (group["class"], group["training"])
        for group in data["modules"]
        for pattern in group["names"]
        for name in names_of(pattern)
    }
    return Observation(tensors=tensors, modules=modules, **{name: data[name] for name in WHOLE})


def _tensors_by_facts(tensors: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """A compact observation's tensors: facts shared by many once, a fingerprint each."""
    alike: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for name, facts in tensors.items():
        shared = {fact: value for fact, value in facts.items() if fact not in OWN}
        alike.setdefault(repr(shared), (shared, []))[1].append(name)
    for shared, names in alike.values():
        fingerprints = {
            pattern: " ".join(tensors[name]["fingerprint"] for name in names_of(pattern))
            for pattern in _compact_names(names)
        }
        yield shared | {"fingerprints": fingerprints}


def _modules_by_class(modules: Mapping[str, tuple[str, bool]]) -> Iterator[dict[str, Any]]:
    """A compact observation's modules: those of one class and mode once."""
    alike: dict[tuple[str, bool], list[str]] = {}
    for name, (class_name, training) in modules.items():
        alike.setdefault((class_name, training), []).append(name)
    for (class_name, training), names in alike.items():
        yield {"class": class_name, "training": training, "names": _compact_names(names)}


def _finite_accuracy(accuracy: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The accuracy in a compact observation; None if one of its numbers is not finite."""
    if accuracy is None:
        return None
    numbers = [accuracy["unit"], accuracy["error"] or 0.0, *accuracy["sample"]]
    return accuracy if all(map(math.isfinite, numbers)) else None


def _compact_names(names: Sequence[str]) -> list[str]:
    """The names as patterns, for a compact observation, if `names_of` gives them back."""
    drawn = grouped(names)
    return drawn if sorted(_expanded_names(drawn)) == sorted(names) else list(names)


def _expanded_names(patterns: Iterable[str]) -> list[str]:
    """All names of the patterns of a compact observation."""
    return [name for pattern in patterns for name in names_of(pattern)]


def names_of(pattern: str) -> list[str]:
    """The names of a pattern of `grouped`: `layers.{0..2,5}.weight` is four names."""
    found = _NUMBERS.search(pattern)
    if found is None:
        return [pattern]
    numbers: list[int] = []
    for part in found[1].split(","):
        low, _, high = part.partition("..")
        numbers += range(int(low), int(high or low) + 1)
    return [f"{pattern[: found.start()]}{n}{pattern[found.end() :]}" for n in numbers]
