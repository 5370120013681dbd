"""What a load did to the options it was given: entries, types, tensors, identities (CFG-40)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import torch

from conformance.results.fingerprint import fingerprint

# Values that nobody can change in place.
PLAIN = (bool, int, float, str, bytes, PurePath, type, torch.dtype, torch.device, type(None))


@dataclass(frozen=True)
class Fact:
    """A value that the caller passed, or that stands in one.

    Attributes:
        text: the value as text; of what has entries, the type.
        entries: the names of its entries, in order.
        value: the value, so that no other gets its identity meanwhile.
    """

    text: str
    entries: tuple[str, ...]
    value: Any


def option_facts(options: Mapping[str, Any]) -> dict[str, Fact]:
    """Each option and whatever stands in it, by its place, such as `max_memory['cpu']`; not the
    token, which is a secret."""
    found: dict[str, Fact] = {}
    for name, value in options.items():
        if name != "token":
            _find(name, value, found, frozenset())
    return found


def _find(place: str, value: Any, found: dict[str, Fact], above: frozenset[int]) -> None:
    """Add a value and whatever stands in it, but not what it stands in itself."""
    inner = _entries(value)
    if inner is None:
        found[place] = Fact(_text(value), (), value)
        return
    found[place] = Fact(type(value).__name__, tuple(inner), value)
    above |= {id(value)}
    for name, entry in inner.items():
        if id(entry) not in above:
            _find(f"{place}{name}", entry, found, above)


def _entries(value: Any) -> dict[str, Any] | None:
    """What stands in a value, by index, key or attribute; None if nothing can."""
    if isinstance(value, Mapping):
        return {f"[{key!r}]": inner for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return {f"[{index}]": inner for index, inner in enumerate(value)}
    if isinstance(value, (torch.Tensor, *PLAIN)) or not hasattr(value, "__dict__"):
        return None
    return {f".{name}": inner for name, inner in vars(value).items()}


def _text(value: Any) -> str:
    """A value without entries, with its type."""
    if isinstance(value, torch.Tensor):
        dense = value if value.layout == torch.strided else value.to_dense()
        facts = f"{value.dtype} {list(value.shape)} on {value.device}"
        return f"{facts} of values {fingerprint(dense)}"
    return f"{type(value).__name__} {value!r}" if isinstance(value, PLAIN) else type(value).__name__


def changed_options(
    before: Mapping[str, Fact], after: Mapping[str, Fact]
) -> dict[str, tuple[str, str]]:
    """Place to what stood there before the load and what stands there now, where they differ.

    An entry that was exchanged for an equal one was written to as well. An entry that is only
    there before, or only now, is told of what it stands in.
    """
    return {
        f"{place} passed": (then, now)
        for place in before
        if place in after
        for then, now in [_differing(before[place], after[place])]
        if then != now
    }


def _differing(before: Fact, after: Fact) -> tuple[str, str]:
    """How a value differs from what it was, in words; twice the same if it does not."""
    if before.text != after.text:
        return before.text, after.text
    removed = [name for name in before.entries if name not in after.entries]
    added = [name for name in after.entries if name not in before.entries]
    if removed or added:
        then = [f"with {name}" for name in removed] + [f"without {name}" for name in added]
        now = [f"without {name}" for name in removed] + [f"with {name}" for name in added]
        return f"{before.text} {', '.join(then)}", f"{after.text} {', '.join(now)}"
    if before.entries != after.entries:
        order = f"{before.text} of {', '.join(before.entries)}"
        return order, f"{after.text} of {', '.join(after.entries)}"
    if before.value is not after.value and not isinstance(after.value, PLAIN):
        return before.text, f"another {after.text}, which is equal"
    return before.text, before.text
