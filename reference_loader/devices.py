"""The device of each tensor: pure functions."""

from __future__ import annotations

from typing import Any

import torch

from reference_loader.errors import UnsupportedOption

CPU = torch.device("cpu")


def resolve(device_map: Any) -> torch.device:
    """The one device of the whole model; this loader places on the CPU.

    Raises:
        UnsupportedOption: any other place.
    """
    wanted = set(device_map.values()) if isinstance(device_map, dict) else {device_map}
    if all(place is None or str(place) == "cpu" for place in wanted):
        return CPU
    raise UnsupportedOption(
        f"device_map={device_map!r} is not carried out by this loader yet.",
        "Load on the CPU (device_map=None) and move the model with .to(...).",
    )
