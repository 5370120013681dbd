"""Loaders with one planted fault each, and the clause that must catch it: one table a stage.

Each is stock with one thing done to what goes in, to what comes out, or around it
(`conformance.mutants.planting`). `honest` has no fault and must pass everything.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from conformance.mutants import (
    cfg,
    cnv,
    dty,
    fmt,
    idx,
    inf,
    ini,
    left_behind,
    map,
    mem,
    mis,
    off,
    out,
    pairs,
    plc,
    res,
    sav,
    sizes,
    sta,
    tie,
    use,
)
from conformance.mutants.planting import Mutant
from conformance.observe.loaders import Loader, stock

__all__ = ["MUTANTS", "Mutant", "honest"]

STAGES = (
    *(res, idx, fmt, cfg, dty, ini, map, cnv, mis, tie, plc, off, inf, sta, mem, out, use, sav),
    *(left_behind, pairs, sizes),
)


def planted_in(stage: ModuleType) -> list[Mutant]:
    """The mutants of a file: each by its own name, or in a table `MUTANTS`."""
    named = [found for found in vars(stage).values() if isinstance(found, Mutant)]
    return [*named, *getattr(stage, "MUTANTS", ())]


MUTANTS: dict[str, Mutant] = {found.name: found for stage in STAGES for found in planted_in(stage)}


def honest(model_class: type | None, source: str, **options: Any) -> Any:
    """Stock, in a wrapping of its own."""
    return stock(model_class, source, **options)


def __getattr__(name: str) -> Loader:
    """`conformance.mutants:NAME` is the loader of the mutant."""
    if name in MUTANTS:
        return MUTANTS[name].loader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
