"""Several loads at once, on a schedule that exposes any state they share.

A switch of the process that a loader saves, sets and restores is corrupted only when two loads
overlap in one certain way, which chance seldom brings about. Here the loads meet inside the
constructor of the first module that each builds, whatever its class is, and then each finishes
before the next continues. It is one of the schedules that threads may run in, and it is the same
every time. A loader that lets one thread at a time build a model keeps them from meeting; then they
run without a schedule.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

# After this many seconds in which the process used less CPU time than `IDLE`, the threads that
# have not arrived must be blocked elsewhere.
PATIENCE, IDLE = 0.2, 0.02

Facts = Mapping[str, Any]


class Gathering:
    """The threads of one trial, in the order in which they arrive at the meeting."""

    def __init__(self, count: int) -> None:
        self._changed = threading.Condition()
        self._expected = count
        self._free = False
        self.arrived: list[int] = []
        self._finished: set[int] = set()

    def meet(self, me: int) -> None:
        """Have a thread wait until all have arrived, then until the earlier ones have finished."""
        with self._changed:
            if self._free or me in self.arrived:
                return
            place = len(self.arrived)
            self.arrived.append(me)
            self._changed.notify_all()
            self._wait_until(lambda: len({*self.arrived, *self._finished}) == self._expected)
            self._wait_until(lambda: self._finished.issuperset(self.arrived[:place]))

    def finish(self, me: int) -> None:
        """Note that this thread's load has ended."""
        with self._changed:
            self._finished.add(me)
            self._changed.notify_all()

    def _wait_until(self, until: Callable[[], bool]) -> None:
        """Have a thread wait until it is so, or until no thread of the trial works."""
        worked = time.process_time()
        while not self._changed.wait_for(lambda: self._free or until(), PATIENCE):
            before, worked = worked, time.process_time()
            if worked - before < IDLE:
                self._free = True
                self._changed.notify_all()


# The gathering that a thread belongs to and its number there: the model's constructor takes no
# argument for them. Not the identity of the thread: the next one has it again once a thread ends.
_mine = threading.local()


def meet() -> None:
    """Wait for the other loads of the trial; without effect in a load that runs alone."""
    gathering: Gathering | None = getattr(_mine, "gathering", None)
    if gathering is not None:
        gathering.meet(_mine.number)


@contextmanager
def _constructors_meet() -> Iterator[None]:
    """Have the first module that a thread of a trial builds wait for the other threads' first."""
    construct = nn.Module.__init__

    def construct_together(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        meet()
        construct(self, *args, **kwargs)

    nn.Module.__init__ = construct_together  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__init__ = construct  # type: ignore[method-assign]


def load_in_threads(
    count: int, load: Callable[[], Any], facts: Callable[[Any], Facts]
) -> tuple[Any, list[dict[str, Any]]]:
    """Load once alone and then in `count` threads at once.

    Args:
        count: of threads, more than one.
        load: the load.
        facts: what must be the same for every result.

    Returns:
        What the first load that differs from the one alone returned, or the exception it raised;
        what the first load returned if none differs. And for each thread its number (`thread`, `of`
        the count), what it `raised` ("" for nothing), the names of the facts that are `differing`,
        and how many facts there are (`tensors`).

    Raises:
        Exception: what the load alone raised.
    """
    generator = torch.get_rng_state()
    alone = facts(load())
    torch.set_rng_state(generator)
    results = _load_together(count, load)
    seen = [
        {
            "thread": number,
            "of": count,
            "tensors": len(alone),
            **_compared_with(alone, result, facts),
        }
        for number, result in enumerate(results, 1)
    ]
    first = next((i for i, thread in enumerate(seen) if how_it_differs(thread)), 0)
    return results[first], seen


def how_it_differs(thread: Facts) -> str:
    """How the load of a thread differs from the load alone, in words; "" if it does not."""
    if thread["raised"]:
        return str(thread["raised"])
    names = thread["differing"]
    if not names:
        return ""
    return f"{len(names)} of {thread['tensors']} tensors differ, the first {names[0]}"


def _load_together(count: int, load: Callable[[], Any]) -> list[Any]:
    """What the load in each thread returned or raised, in the order in which they arrived."""
    gathering = Gathering(count)
    results: dict[int, Any] = {}

    def run(number: int) -> None:
        _mine.gathering, _mine.number = gathering, number
        try:
            results[number] = load()
        except Exception as exception:
            results[number] = exception
        finally:
            gathering.finish(number)

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(count)]
    with _constructors_meet():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    late = [number for number in results if number not in gathering.arrived]
    return [results[number] for number in (*gathering.arrived, *late)]


def _compared_with(alone: Facts, result: Any, facts: Callable[[Any], Facts]) -> dict[str, Any]:
    """How a thread's load differs from the load alone: its error, the differing facts."""
    if isinstance(result, Exception):
        return {"raised": f"{type(result).__name__}: {result}", "differing": []}
    here = facts(result)
    differing = [name for name in {**alone, **here} if alone.get(name) != here.get(name)]
    return {"raised": "", "differing": differing}
