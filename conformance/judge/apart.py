"""Judge in a process apart: a loader may end its process, or never return.

The process judges case after case and says before each load whose it is. If it ends, or is silent
for too long, that is the verdict on the loader that was loading, and another process goes on with
the next case. What the reference is blamed for is tried once more in a process of its own first:
the loader may have done it.

Linux forks it, so that it starts at once. It forks before anything was loaded here: threads that
torch started do not live on in a fork.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
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
    cases: Sequence[Case], session: Session, seconds: float = SECONDS, prepared: bool = False
) -> Iterator[Result]:
    """The verdicts, one at a time; a load that ends its process, or does not end, has one too.

    Args:
        cases: what is judged.
        session: by which loader.
        seconds: what one load may take.
        prepared: whether this process has loaded before, on one thread.
    """
    with tempfile.TemporaryDirectory(prefix="conformance-apart-") as folder:
        judge_one = _Judge(_Work(cases, session, folder, prepared), seconds)
        try:
            yield from map(judge_one, range(len(cases)))
        finally:
            judge_one.end()


class _Judge:
    """Has a process apart judge one case after the other; starts another when it ended."""

    def __init__(self, work: _Work, seconds: float) -> None:
        self._work = work
        self._seconds = seconds
        self._apart: _Apart | None = None

    def __call__(self, number: int) -> Result:
        """The verdict on a case."""
        fresh = self._apart is None
        found = self._attempt(number)
        if isinstance(found, _Ending) and found.ours and not fresh:
            found = self._attempt(number)  # the loader may have spoilt the process
        if isinstance(found, Result):
            return found
        return _told(self._work.cases[number], self._work.session, found)

    def _attempt(self, number: int) -> Result | _Ending:
        """The verdict on a case, or how the process ended, which then is no more."""
        self._apart = self._apart or _Apart(self._work, self._seconds)
        found = self._apart.judge(number)
        if isinstance(found, _Ending):
            self.end()
        return found

    def end(self) -> None:
        """End the process, if there is one."""
        if self._apart is not None:
            self._apart.end()
        self._apart = None


def _told(case: Case, session: Session, ending: _Ending) -> Result:
    """The verdict on a load that ended its process, or did not end."""
    result = blank(case, session.judged, rerun(case, session))
    if ending.ours:
        return replace(result, status=ERROR, reason=f"the reference: {ending.told}")
    return ended(result, session.judged, ending.kind, ending.told)


@dataclass(frozen=True)
class _Ending:
    """How a process ended, or was found to block.

    Attributes:
        ours: whether the reference was loading.
        kind: of divergence that it is, `crash` or `hang`.
        told: in words.
    """

    ours: bool
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

    def __init__(self, work: _Work, seconds: float) -> None:
        context = multiprocessing.get_context("fork")
        self._seconds = seconds
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(work, there, self._here))
        self._process.start()
        there.close()

    def judge(self, number: int) -> Result | _Ending:
        """The verdict on a case, or how the process ended."""
        ours, limit = False, STARTING
        with suppress(BrokenPipeError):
            self._here.send(number)
        while True:
            if not self._here.poll(limit):
                return _Ending(ours, "hang", f"no answer within {limit:g} seconds")
            try:
                message: Any = self._here.recv()
            except (EOFError, ConnectionResetError):
                return _Ending(ours, "crash", self._ending())
            if isinstance(message, Result):
                return message
            ours, limit = message == REFERENCE, self._seconds

    def _ending(self) -> str:
        """How the process ended."""
        self._process.join()
        code = self._process.exitcode or 0
        if code < 0:
            return f"the process was killed by {signal.Signals(-code).name}"
        return f"the process ended with exit code {code}"

    def end(self) -> None:
        """End the process, whatever it does."""
        self._here.close()
        self._process.kill()
        self._process.join()


def _serve(work: _Work, there: Connection, here: Connection) -> None:
    """Be the process apart: judge the cases whose numbers are asked for."""
    here.close()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    tempfile.tempdir = work.folder
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
