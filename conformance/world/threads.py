"""Several loads at once, on a schedule that tears whatever they share.

A switch of the process that a loader saves, sets and puts back is torn only when two loads overlap
in one certain way, which chance seldom brings about. Here the loads meet inside the constructor of
the model (`conformance.world.user_models:Meeting`), and then each finishes before the next goes on. It is one
of the schedules that threads may fall into, and the same every time. A loader that lets one thread
at a time build a model cannot have them meet; then they run freely.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from conformance.results.records import Divergence

CLAUSE = "STA-3"

# Seconds in which the process did next to nothing: then whoever is not there is held up elsewhere.
PATIENCE, IDLE = 0.2, 0.02

Facts = Mapping[str, Any]


class Gathering:
    """The threads of one trial, in the order in which they come to the meeting."""

    def __init__(self, count: int) -> None:
        self._changed = threading.Condition()
        self._expected = count
        self._free = False
        self.arrived: list[int] = []
        self._finished: set[int] = set()

    def meet(self) -> None:
        """Wait for the others, then for those who came before to have finished."""
        with self._changed:
            me = threading.get_ident()
            if self._free or me in self.arrived:
                return
            place = len(self.arrived)
            self.arrived.append(me)
            self._changed.notify_all()
            self._wait(lambda: len({*self.arrived, *self._finished}) == self._expected)
            self._wait(lambda: self._finished.issuperset(self.arrived[:place]))

    def finish(self) -> None:
        """Say that this thread's load is over."""
        with self._changed:
            self._finished.add(threading.get_ident())
            self._changed.notify_all()

    def _wait(self, until: Callable[[], bool]) -> None:
        worked = time.process_time()
        while not self._changed.wait_for(lambda: self._free or until(), PATIENCE):
            before, worked = worked, time.process_time()
            if worked - before < IDLE:
                self._free = True
                self._changed.notify_all()


# The gathering that a thread belongs to: the model's constructor takes no argument for it.
_mine = threading.local()


def meet() -> None:
    """Called where loads shall overlap; of no effect in a load that is alone."""
    gathering: Gathering | None = getattr(_mine, "gathering", None)
    if gathering is not None:
        gathering.meet()


def load_in_threads(
    count: int, load: Callable[[], Any], facts: Callable[[Any], Facts], found: list[Divergence]
) -> Any:
    """Load once alone and then `count` times at once.

    Args:
        count: of threads; 1 for a plain load.
        load: the load.
        facts: what is to be the same of every result.
        found: takes what is said of the first result that differs from the one loaded alone.

    Returns:
        That result, else the first.

    Raises:
        Exception: what that load raised.
    """
    if count == 1:
        return load()
    generator = torch.get_rng_state()
    alone = facts(load())
    torch.set_rng_state(generator)
    results = _together(count, load)
    for number, result in enumerate(results, 1):
        odd = _odd(f"thread {number} of {count}", alone, result, facts)
        if odd is not None:
            found.append(odd)
            return _unless_raised(result)
    return _unless_raised(results[0])


def _together(count: int, load: Callable[[], Any]) -> list[Any]:
    """What each load returned or raised, in the order of arrival."""
    gathering = Gathering(count)
    results: dict[int, Any] = {}

    def run() -> None:
        _mine.gathering = gathering
        try:
            results[threading.get_ident()] = load()
        except Exception as exception:
            results[threading.get_ident()] = exception
        finally:
            gathering.finish()

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    late = [thread for thread in results if thread not in gathering.arrived]
    return [results[thread] for thread in (*gathering.arrived, *late)]


def _odd(where: str, alone: Facts, result: Any, facts: Callable[[Any], Facts]) -> Divergence | None:
    if isinstance(result, Exception):
        told = f"{type(result).__name__}: {result}"
        return Divergence("rejected", where, "a model", told, CLAUSE)
    here = facts(result)
    names = [name for name in {**alone, **here} if alone.get(name) != here.get(name)]
    if not names:
        return None
    told = f"{len(names)} of {len(alone)} tensors differ, the first {names[0]}"
    return Divergence("values", where, "the model loaded alone", told, CLAUSE)


def _unless_raised(result: Any) -> Any:
    if isinstance(result, Exception):
        raise result
    return result
