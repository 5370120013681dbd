"""Checkpoints that one target saves and the others load."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from conformance.cases.case import Case
from conformance.cases.own import Own
from conformance.releases.prober import NotObserved, Probe, TargetUnusable
from conformance.releases.targets import Target


@contextmanager
def saved_checkpoints(
    cases: Sequence[Case],
    pythons: Mapping[Target, Path],
    ours: Path,
    own: Own,
    seconds: float,
    *,
    task: Callable[[str, int], Callable[[str], None]],
) -> Iterator[dict[str, Path | str]]:
    """Have every case with a `saved_by` saved by that target; the targets save side by side.

    Args:
        cases: those without are left out.
        pythons: each target's interpreter.
        ours: the folder of `prober.our_packages`.
        own: the user's checkpoints.
        seconds: the limit of one load.
        task: shows progress: what is done and in how many steps, to what is told of each step.

    Yields:
        The id of a case to the folder, which lasts as long as the block, or to the reason why
        there is none.
    """
    with tempfile.TemporaryDirectory(prefix="conformance-saved-by-") as place:

        def save_in(target: Target) -> dict[str, Path | str]:
            mine = [case for case in cases if case.saved_by == target.file_name]
            advance = task(f"{target.name} saves", len(mine)) if mine else None
            found: dict[str, Path | str] = {}
            with Probe(pythons[target], ours, own=own, seconds=seconds) as probe:
                for case in mine:
                    if advance is not None:
                        advance(case.id)
                    folder = Path(place, target.file_name, str(len(found)))
                    found[case.id] = _saved(probe, case, folder)
            if advance is not None:
                advance("")
            return found

        with ThreadPoolExecutor(len(pythons)) as threads:
            every = list(threads.map(save_in, pythons))
        yield {case: saved for found in every for case, saved in found.items()}


def _saved(probe: Probe, case: Case, folder: Path) -> Path | str:
    """The folder that the probe has saved into, or the reason why it has not."""
    try:
        return probe.save(case.id, folder) or folder
    except (NotObserved, TargetUnusable) as cause:
        return str(cause)
