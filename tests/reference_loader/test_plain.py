"""The switch for speed: what it turns off, that it turns all of it off, and that models stay."""

from __future__ import annotations

import gc
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from conformance_fixtures.faults.read_and_edit import read_weights
from conformance_fixtures.files import write_safetensors
from reference_loader import from_pretrained, plain, plan, speed
from reference_loader import load as load_module
from reference_loader.errors import BadOptions
from reference_loader.fill import copies, ring
from reference_loader.model import skeleton
from reference_loader.plan import decide
from reference_loader.plan.workers import CHUNK
from reference_loader.speed import (
    context_made_early,
    fast,
    initialisers_skipped,
    restore_initialisers,
)

VARIABLE = "FROM_PRETRAINED_PLAIN"
LARGE = {"model.embed_tokens.weight", "lm_head.weight"}


@pytest.fixture(autouse=True)
def not_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says."""
    monkeypatch.delenv(VARIABLE, raising=False)


@contextmanager
def by_environment() -> Iterator[None]:
    os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        del os.environ[VARIABLE]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each fast path was taken."""
    count: Counter[str] = Counter()

    def counted(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        @wraps(function)
        def calling(*arguments: Any, **keywords: Any) -> Any:
            count[name] += 1
            return function(*arguments, **keywords)

        monkeypatch.setattr(owner, name, calling)

    counted(ThreadPoolExecutor, "submit")
    counted(copies.Crew, "carry")
    counted(ring.Lane, "carry")
    counted(ring, "_read_file")
    counted(ring, "_read_directly")
    counted(ring, "_populate")
    counted(gc, "disable")
    counted(speed, "_make_context")
    counted(speed, "_library_initialisers")
    monkeypatch.setattr(ring, "_cached", lambda _: False)
    return count


@pytest.fixture
def large(own: Callable[..., Path]) -> Path:
    """A Llama of which two tensors are worth a thread."""
    rows = CHUNK // 64
    folder = own("llama-f32", vocab_size=rows)
    tensors = read_weights(folder).tensors
    tensors |= {name: torch.randn(rows, 32) for name in LARGE}
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


FAST_PATHS = {
    "submit",
    "carry",
    "_read_file",
    "_read_directly",
    "_populate",
    "disable",
    "_library_initialisers",
    "_make_context",
}


def load(folder: Path) -> None:
    from_pretrained(folder, dtype="bfloat16")


def place(folder: Path) -> None:
    """As on a machine with a GPU; where there is none, the load fails."""
    with pytest.MonkeyPatch.context() as patch, suppress(BadOptions):
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "is_initialized", lambda: False)
        from_pretrained(folder, device_map="cuda")


def test_every_fast_path_runs_by_default(large: Path, runs: Counter[str]) -> None:
    """So that the counters can see one that runs in plain mode."""
    load(large)
    place(large)
    assert runs.keys() == FAST_PATHS


@pytest.mark.parametrize("switch", [plain, by_environment])
def test_no_fast_path_runs_in_plain_mode(large: Path, runs: Counter[str], switch: Any) -> None:
    with switch():
        load(large)
        plan(large)
        place(large)
    assert runs == {}


@pytest.mark.parametrize("name", ["collection_deferred", "context_made_early", "waits", "skipped"])
def test_a_fast_path_that_ignores_the_switch_is_seen(
    large: Path, runs: Counter[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Each of the places that ask `fast()`, planted one after the other to ask nothing."""
    if name == "waits":
        monkeypatch.setattr(decide, "fast", lambda: True)
    elif name == "skipped":
        monkeypatch.setattr(skeleton, "initialisers_skipped", anyway(initialisers_skipped))
    else:
        monkeypatch.setattr(load_module, name, anyway(getattr(speed, name)))
    with plain():
        load(large)
        place(large)
    assert runs


def anyway(manager: Any) -> Any:
    """The context manager as outside of plain mode."""

    @contextmanager
    def calling(*arguments: Any) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(speed, "fast", lambda: True)
            entered = manager(*arguments)
            entered.__enter__()
        try:
            yield
        finally:
            entered.__exit__(None, None, None)

    return calling


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
@pytest.mark.parametrize(
    ("recipe", "faults"),
    [
        ("llama-f32-7", ()),
        ("llama-mixed-2", ()),
        ("llama-tied-head", ()),
        ("llama-f32", ("missing-norm",)),
        ("llama-f32", ("missing-head",)),
        ("llama-f32-2", ("pickled",)),
        ("llama-f32", ("pickled-legacy",)),
    ],
)
def test_the_models_are_the_same(
    checkpoint: Any, same_models: Any, recipe: str, faults: tuple[str, ...], dtype: str
) -> None:
    folder, models, states = checkpoint(recipe, *faults), [], []
    for mode in (nullcontext, plain):
        torch.manual_seed(5)
        with mode():
            models.append(from_pretrained(folder, dtype=dtype))
        states.append(torch.get_rng_state())
    same_models(*models)
    assert torch.equal(*states)


def test_large_tensors_are_the_same(large: Path, same_models: Any) -> None:
    models = [from_pretrained(large, dtype="float16")]
    with plain():
        models.append(from_pretrained(large, dtype="float16"))
    same_models(*models)


def test_a_plan_says_what_waits(large: Path) -> None:
    quick = plan(large, dtype="bfloat16")
    with plain():
        slow = plan(large, dtype="bfloat16")
    assert {p.target for p in quick.placements if p.waits} == LARGE
    assert list(quick.workers) == [torch.device("cpu")]
    assert not any(p.waits for p in slow.placements)
    assert slow.workers == {}
    assert [p.action for p in quick.placements] == [p.action for p in slow.placements]


def test_the_switch_is_the_threads_own(large: Path, runs: Counter[str]) -> None:
    """A thread that loads plainly, and another that does not, at the same time."""
    both = threading.Barrier(2)
    found = {}

    def loading(mode: Any) -> None:
        with mode():
            both.wait(30)
            found[mode] = (fast(), plan(large, dtype="bfloat16").workers)
            both.wait(30)

    threads = [threading.Thread(target=loading, args=[mode]) for mode in (plain, nullcontext)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[plain] == (False, {})
    assert found[nullcontext][0]
    assert found[nullcontext][1]


@pytest.mark.parametrize(("value", "wanted"), [("", True), ("0", True), ("1", False)])
def test_the_variable(monkeypatch: pytest.MonkeyPatch, value: str, wanted: bool) -> None:
    monkeypatch.setenv(VARIABLE, value)
    assert fast() is wanted


def test_the_switch_is_as_it_was_afterwards() -> None:
    with pytest.raises(ZeroDivisionError), plain():
        with plain():
            assert not fast()
        assert not fast()
        raise ZeroDivisionError
    assert fast()


def test_an_initialiser_of_the_instance_is_kept() -> None:
    """Only what was put in its place is taken away again."""

    def of_the_user() -> None:
        pass

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.linear.reset_parameters = of_the_user  # type: ignore[assignment]
            self.linear.extra = nn.Parameter(torch.ones(1))

    with initialisers_skipped():
        module = Own()
    restore_initialisers(module.linear)
    assert module.linear.reset_parameters is of_the_user


# The context of a GPU.


class Slow:
    """A GPU whose context takes until `made` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[Any] = []
        self.threads: list[int] = []
        self.made = threading.Event()
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
        monkeypatch.setattr(speed, "_make_context", self.make)

    def make(self, device: torch.device) -> None:
        self.asked.append(device)
        self.threads.append(threading.get_ident())
        assert self.made.wait(30)


@pytest.mark.parametrize("where", ["cuda:0", 0, torch.device("cuda", 0)], ids=repr)
def test_the_context_is_made_while_the_load_is_planned(
    monkeypatch: pytest.MonkeyPatch, where: Any
) -> None:
    """In a thread beside, which is gone at the end."""
    gpu, before = Slow(monkeypatch), threading.active_count()
    with context_made_early(where):
        gpu.made.set()  # by the plan, while the context is made
    assert gpu.asked == [torch.device("cuda:0")]
    assert threading.get_ident() not in gpu.threads
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "where", [None, "auto", {"": 0}, "cpu", "disk", "no such place", -1, True, 1.5], ids=repr
)
def test_no_context_is_made_for_another_device(monkeypatch: pytest.MonkeyPatch, where: Any) -> None:
    """And what is no device at all is refused by the plan, not here."""
    gpu = Slow(monkeypatch)
    with context_made_early(where):
        pass
    assert gpu.asked == []
