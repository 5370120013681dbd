"""Loading a tiny checkpoint takes the reference no longer than stock, in one process, in turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM

from conformance.loaders import Loader, reference, stock
from conformance.observe import quiet

ROUNDS, LOADS = 10, 10


def seconds(loader: Loader, folder: Path) -> float:
    """Of one load."""
    started = time.perf_counter()
    loader(LlamaForCausalLM, str(folder))
    return time.perf_counter() - started


def ratio(loader: Loader, other: Loader, folder: Path) -> float:
    """The shortest load by `loader` to the shortest by `other`: what else runs only adds.

    Round after round, until it is at most one or the rounds are over.
    """
    ours, theirs = [], []
    with quiet():
        for _ in range(ROUNDS):
            for _ in range(LOADS):
                ours.append(seconds(loader, folder))
                theirs.append(seconds(other, folder))
            # The first loads do what happens once in a process.
            found = min(ours[2:]) / min(theirs[2:])
            if found <= 1:
                break
    return found


def thrice(*arguments: Any) -> Any:
    """A loader that is too slow."""
    for _ in range(2):
        reference(*arguments)
    return reference(*arguments)


@pytest.mark.parametrize("recipe", ["llama-f32", "llama-f32-7"])
def test_the_reference_is_as_fast_as_stock(
    checkpoint: Callable[..., Path],
    same_models: Callable[..., None],
    record_property: Callable[[str, object], None],
    recipe: str,
) -> None:
    """And what it loads meanwhile is the same."""
    folder = checkpoint(recipe)
    found = ratio(reference, stock, folder)
    record_property("ratio", round(found, 3))
    assert found <= 1.0
    same_models(*(load(LlamaForCausalLM, str(folder)) for load in (reference, stock)))


def test_a_slower_loader_is_seen(checkpoint: Callable[..., Path]) -> None:
    """However often it is tried."""
    assert ratio(thrice, stock, checkpoint("llama-f32")) > 1.0
