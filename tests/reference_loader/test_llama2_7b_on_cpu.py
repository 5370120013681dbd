"""Llama-2-7B on the CPU of a machine with 24 GiB: both loaders map the same pages."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance.cases.case import CAUSAL, Case, Torch

# That a parameter lies in the mapped file says its values too: no pass over the file for MAP-1.
CLAUSES = ("MEM-1", "INI-1", "INF-1", "INF-2", "INF-3", "OUT-1", "OUT-3", "OUT-4")

# Bytes of memory that the machine must have for the files' pages and a forward beside them.
NEEDED = 22 * 2**30

# Bytes of anonymous memory: activations, and what torch keeps; never a copy of the weights.
MOST = 2**30


@pytest.mark.slow
def test_it_is_what_stock_makes_of_it(
    pytestconfig: pytest.Config,
    request: pytest.FixtureRequest,
    against_stock: Callable[[Case], Any],
    anonymous: Callable[[], Any],
    record_property: Callable[[str, object], None],
) -> None:
    """In float16, as stored: every key, logits and hidden states; tokens are for a GPU."""
    if not pytestconfig.getoption("--llama2-7b"):
        pytest.skip("some minutes and 15 GB of disk: ask for it by --llama2-7b synthetic")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if memory < NEEDED:
        pytest.skip(
            f"{NEEDED / 2**30:.0f} GiB of memory are needed, {memory / 2**30:.0f} are there"
        )
    folder: Path = request.getfixturevalue("llama2_7b")
    case = Case(
        "own/llama2-7b/float16",
        CLAUSES,
        recipe="",
        model=CAUSAL,
        folder=folder,
        options={"dtype": Torch("float16")},
    )
    with anonymous() as peak:
        left, divergences = against_stock(case)
    record_property("anonymous", peak[0])
    assert divergences == []
    assert left.exception is None
    assert sum(facts["kind"] == "parameter" for facts in left.tensors.values()) == 291
    assert {f"hidden_states.{n}" for n in range(33)} <= left.outputs.keys()
    assert peak[0] <= MOST
