"""The plain load that clauses of OFF and RES hold a case against."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from conformance.cases.case import Case
from conformance_fixtures.write import materialise

# Clauses that promise the outputs of a load without a device map.
IN_MEMORY = ("OFF-1", "OFF-2", "OFF-3", "OFF-4", "OFF-5", "OFF-8")

# Clauses that promise the values of a load from the folder that was published.
FROM_FOLDER = ("RES-14", "RES-15", "RES-16", "RES-18")

# Options that place weights, or that give what the folder holds as well.
PLACING = ("device_map", "max_memory", "offload_folder", "offload_buffers", "offload_state_dict")
GIVEN = ("state_dict", "config")

# Options that a load from a folder has no use for.
OF_THE_HUB = ("revision", "token", "cache_dir", "local_files_only", "force_download")


def baseline(case: Case) -> Case | None:
    """The same checkpoint and model class, loaded from the folder into memory; None for a case
    whose clauses do not need it.

    A case on a GPU is loaded onto that GPU alone, which is where accelerate computes, unless
    `max_memory` leaves it nothing.
    """
    if any(clause in case.clauses for clause in IN_MEMORY):
        left_out: tuple[str, ...] = (*PLACING, *GIVEN)
        unused = case.options.get("max_memory", {}).get(0) == 0
        on_cpu = case.device == "cpu" or unused
        given: dict[str, Any] = {} if on_cpu else {"device_map": case.device}
    elif any(clause in case.clauses for clause in FROM_FOLDER):
        left_out = OF_THE_HUB
        published = case.hub.config if case.hub is not None else ""
        given = {"config": materialise(published)} if published else {}
    else:
        return None
    kept = {name: value for name, value in case.options.items() if name not in left_out}
    return replace(
        case,
        id=f"{case.id}/baseline",
        clauses=(),
        options=kept | given,
        greedy=False,
        given="",
        hub=None,
        under=(),
        threads=1,
        copied=False,
    )
