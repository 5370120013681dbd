"""What a sweep of the pinned ring measures: settings, and the seconds that each took."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from reference_loader.plan.workers import BESIDE, LANES, SLOT, SLOTS


@dataclass(frozen=True)
class Setting:
    """What is swept: threads, slots of each, bytes of a slot's memory."""

    lanes: int = LANES
    slots: int = SLOTS
    size: int = SLOT + BESIDE


@dataclass(frozen=True)
class Sweep:
    """The seconds of each round, by setting and by limit, and the bytes that were loaded."""

    size: int
    rings: dict[Setting, list[float]]
    limits: dict[str, list[float]]

    def rate(self, seconds: Sequence[float]) -> float:
        """Bytes a second of a ring in a sweep, by the median."""
        return self.size / statistics.median(seconds)

    @property
    def limit(self) -> float:
        """Bytes a second that no pinned ring can pass: the lowest of the limits."""
        return min(map(self.rate, self.limits.values()))

    @property
    def best(self) -> Setting:
        """The setting of the pinned ring with the highest rate."""
        return max(self.rings, key=lambda setting: self.rate(self.rings[setting]))

    def to_dict(self) -> dict[str, Any]:
        """The sweep of the pinned ring, JSON-ready."""
        rings = [{**asdict(setting), "seconds": each} for setting, each in self.rings.items()]
        return {"bytes": self.size, "limits": self.limits, "rings": rings}
