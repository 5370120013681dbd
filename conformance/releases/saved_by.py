"""Checkpoints that one target saves and the others load."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from conformance.cases.case import Case
from conformance.cases.own import Own
from conformance.releases.prober import NotObserved, Probe, TargetUnusable
from conformance.releases.targets import Target


@contextmanager
def saved_checkpoints(
    cases: Sequence[Case], pythons: Mapping[Target, Path], ours: Path, own: Own, seconds: float
) -> Iterator[dict[str, Path | str]]:
    """Have every case with a `saved_by` saved by that target.

    Args:
        cases: those without are left out.
        pythons: each target's interpreter.
        ours: the folder of `prober.our_packages`.
        own: the user's checkpoints.
        seconds: the limit of one load.

    Yields:
        The id of a case to the folder, which lasts as long as the block, or to the reason why
        there is none.
    """
    with tempfile.TemporaryDirectory(prefix="conformance-saved-by-") as place:
        found: dict[str, Path | str] = {}
        for target, python in pythons.items():
            mine = [case for case in cases if case.saved_by == target.file_name]
            with Probe(python, ours, own=own, seconds=seconds) as probe:
                for case in mine:
                    found[case.id] = _saved(probe, case, Path(place, str(len(found))))
        yield found


def _saved(probe: Probe, case: Case, folder: Path) -> Path | str:
    """The folder that the probe has saved into, or the reason why it has not."""
    try:
        return probe.save(case.id, folder) or folder
    except (NotObserved, TargetUnusable) as cause:
        return str(cause)
