"""Judge in a process apart: a loader may end its process, or never return.

The process judges case after case and says before each load whose it is. If it ends, or is silent
for too long, that is the verdict on the loader that was loading, and another process goes on with
the next case. What the reference is blamed for is tried once more in a process of its own first:
the loader may have done it. Several processes may judge at the same time.

Linux forks it, so that it starts at once. It forks before anything was loaded here: threads that
torch started do not live on in a fork.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from conformance.cases.case import Case
from conformance.judge.session import REFERENCE, Session, judge, prepare_session, rerun
from conformance.judge.verdict import blank, ended
from conformance.results.records import ERROR, Result

# Seconds that one load may take: as long as `conformance compare` gives it.
SECONDS = 300.0

# Seconds in which the process starts, and has loaded once with both.
STARTING = 300.0

# With checkpoints of fewer bytes, a second thread only waits; after a fork it may do so for ever.
LARGE = 1 << 28


def judge_apart(
    cases: Sequence[Case],
    session: Session,
    seconds: float = SECONDS,
    prepared: bool = False,
    jobs: int = 1,
) -> Iterator[Result]:
    """The verdicts, in the order of the cases; a load that ends its process, or does not end, has
    one too.

    Args:
        cases: what is judged.
        session: by which loader.
        seconds: what one load may take.
        prepared: whether this process has loaded before, on one thread.
        jobs: how many processes judge at the same time.
    """
    with tempfile.TemporaryDirectory(prefix="conformance-apart-") as folder:
        work = _Work(cases, session, folder, prepared)
        judges = [_Judge(work, seconds) for _ in range(min(jobs, len(cases)))]
        try:
            yield from _in_order(judges, len(cases))
        finally:
            for judge_one in judges:
                judge_one.end()


def _in_order(judges: Sequence[_Judge], count: int) -> Iterator[Result]:
    """The verdicts in the order of the cases; a judge gets the next case once it is idle."""
    waiting = iter(range(count))
    found: dict[int, Result] = {}
    for number in range(count):
        while number not in found:
            for judge_one in judges:
                if judge_one.idle and (following := next(waiting, None)) is not None:
                    judge_one.begin(following)
            for judge_one in _heard([each for each in judges if not each.idle]):
                if result := judge_one.hear():
                    found[judge_one.number] = result
        yield found.pop(number)


def _heard(busy: Sequence[_Judge]) -> list[_Judge]:
    """Wait for judges whose process has something to say, has ended, or is silent for too long."""
    patience = min(judge_one.deadline for judge_one in busy) - time.monotonic()
    ready = wait([judge_one.connection for judge_one in busy], max(0.0, patience))
    now = time.monotonic()
    return [each for each in busy if each.connection in ready or each.deadline <= now]


class _Judge:
    """Has a process apart judge one case after the other; starts another when it ended.

    Attributes:
        number: of the case that is being judged, or was last.
        idle: whether none is.
        deadline: until when the process must say something, by the monotonic clock.
    """

    def __init__(self, work: _Work, seconds: float) -> None:
        self._work = work
        self._seconds = seconds
        self._apart: _Apart | None = None
        self._fresh = True
        self.number = -1
        self.idle = True

    @property
    def connection(self) -> Connection:
        """Where the process says whose load begins, and its verdict."""
        assert self._apart is not None
        return self._apart.here

    def begin(self, number: int) -> None:
        """Begin to judge a case."""
        self.number, self.idle = number, False
        self._fresh = self._apart is None
        self._ask()

    def _ask(self) -> None:
        self._apart = self._apart or _Apart(self._work)
        self._await(STARTING, ours=False)
        with suppress(BrokenPipeError):
            self._apart.here.send(self.number)

    def hear(self) -> Result | None:
        """Take what the process said, or how it ended; the verdict, if there is one now."""
        assert self._apart is not None
        message = self._apart.said()
        if isinstance(message, Result):
            self.idle = True
            return message
        if isinstance(message, str):
            self._await(self._seconds, ours=message == REFERENCE)
            return None
        ending = message or _Ending("hang", f"no answer within {self._limit:g} seconds")
        self.end()
        if self._ours and not self._fresh:
            self._fresh = True
            self._ask()  # the loader may have spoilt the process
            return None
        self.idle = True
        return _told(self._work.cases[self.number], self._work.session, ending, self._ours)

    def _await(self, limit: float, ours: bool) -> None:
        """The process says something within so many seconds; meanwhile who loads is ours or not."""
        self._limit, self._ours = limit, ours
        self.deadline = time.monotonic() + limit

    def end(self) -> None:
        """End the process, if there is one."""
        if self._apart is not None:
            self._apart.end()
        self._apart = None


def _told(case: Case, session: Session, ending: _Ending, ours: bool) -> Result:
    """The verdict on a load that ended its process, or did not end; `ours` is the reference's."""
    result = blank(case, session.judged, rerun(case, session))
    if ours:
        return replace(result, status=ERROR, reason=f"the reference: {ending.told}")
    return ended(result, session.judged, ending.kind, ending.told)


@dataclass(frozen=True)
class _Ending:
    """How a process ended, or was found to block.

    Attributes:
        kind: of divergence that it is, `crash` or `hang`.
        told: in words.
    """

    kind: str
    told: str


@dataclass(frozen=True)
class _Work:
    """What the process apart is given; `folder` is for its temporary files."""

    cases: Sequence[Case]
    session: Session
    folder: str
    prepared: bool


class _Apart:
    """The process apart."""

    def __init__(self, work: _Work) -> None:
        context = multiprocessing.get_context("fork")
        self.here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(work, there, self.here))
        self._process.start()
        there.close()

    def said(self) -> Any:
        """Whose load begins, a verdict, or how the process ended; None if it says nothing."""
        if not self.here.poll():
            return None
        try:
            return self.here.recv()
        except (EOFError, ConnectionResetError):
            return _Ending("crash", self._ending())

    def _ending(self) -> str:
        """How the process ended."""
        self._process.join()
        code = self._process.exitcode or 0
        if code < 0:
            return f"the process was killed by {signal.Signals(-code).name}"
        return f"the process ended with exit code {code}"

    def end(self) -> None:
        """End the process, whatever it does."""
        self.here.close()
        self._process.kill()
        self._process.join()


def _serve(work: _Work, there: Connection, here: Connection) -> None:
    """Be the process apart: judge the cases whose numbers are asked for."""
    here.close()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    tempfile.tempdir = tempfile.mkdtemp(dir=work.folder)  # no other process leaves files there
    sizes = (path.stat().st_size for case in work.cases if case.folder for path in _files(case))
    if sum(sizes) < LARGE:
        torch.set_num_threads(1)
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        if not work.prepared:
            prepare_session(work.session, there.send)
        while True:
            there.send(judge(work.cases[there.recv()], work.session, there.send))
    os._exit(0)  # without what this process would do at its end, which is its parent's


def _files(case: Case) -> Iterator[Any]:
    """The files of a checkpoint that was not made here."""
    assert case.folder is not None
    return (path for path in case.folder.glob("*") if path.is_file())
