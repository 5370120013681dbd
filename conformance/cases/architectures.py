"""The cases on tiny checkpoints of every model type: what can be asked of any of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from conformance.cases.case import Case
from conformance.cases.own import Own, own_cases
from conformance.deviations import ARCH

# Of the ways of loading a user's checkpoint, those that say something of its class; the others say
# the same of any.
FORMS = (
    *("as-saved", "bfloat16", "device-map-cpu", "disk-offload", "saved-again"),
    *("missing-key", "base"),
)


def architecture_cases(folders: Mapping[str, Path]) -> list[Case]:
    """The cases on tiny checkpoints, by model type: `arch/TYPE/FORM`.

    Args:
        folders: model type to the folder of its checkpoint.
    """
    return [
        replace(case, id=f"{ARCH}{name}/{form}", greedy=False)
        for name, folder in folders.items()
        for case in own_cases(Own((folder,)))
        if (form := case.id.rpartition("/")[2]) in FORMS
    ]
