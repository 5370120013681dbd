"""Experiments with a loaded model show nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conformance.cases.case import Case
from conformance.mutants import MUTANTS
from conformance.observe.observe import observe
from conformance.observe.usage import EXPERIMENTS


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("mutant", ["written_through", "file_held"])
def test_a_loader_whose_parameters_write_into_the_file_leaves_the_checkpoint_whole(
    mutant: str, case: Callable[[str], Case]
) -> None:
    used = case("use/single")
    assert set(EXPERIMENTS) & set(used.clauses)
    before = contents(used.source())

    observe(used, MUTANTS[mutant].loader)

    assert contents(used.source()) == before
