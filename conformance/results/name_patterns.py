"""Many names of one pattern as one: `layers.{0..31}.mlp.up_proj.weight`."""

from __future__ import annotations

import re
from collections.abc import Iterable

# A number between dots, as that of a layer.
NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


def grouped(names: Iterable[str]) -> list[str]:
    """The names as patterns: those that differ only in one number between dots drawn together."""
    patterns: dict[tuple[str, ...], list[int]] = {}
    for name in names:
        first = NUMBER.search(name)
        if first is None:
            patterns.setdefault((name,), [])
        else:
            parts = (name[: first.start()], name[first.end() :])
            patterns.setdefault(parts, []).append(int(first.group()))
    return [
        parts[0] if len(parts) == 1 else f"{parts[0]}{_number_range(numbers)}{parts[1]}"
        for parts, numbers in patterns.items()
    ]


def _number_range(numbers: Iterable[int]) -> str:
    """The numbers of a pattern: `{0..31}` without gaps, `{0..3,7}` with gaps, `4` for one."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    told = [str(low) if low == high else f"{low}..{high}" for low, high in runs]
    return told[0] if told == [str(runs[0][0])] else "{" + ",".join(told) + "}"
