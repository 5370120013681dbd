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
from functools import partial
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
        start = partial(_Apart, _Work(cases, session, folder, prepared), seconds)
        apart: _Apart | None = None
        try:
            for number, case in enumerate(cases):
                for attempt in (1, 2):
                    apart, fresh = apart or start(), apart is None
                    result = apart.judge(number)
                    if isinstance(result, Result):
                        break
                    apart.end()
                    apart = None
                    ours, told, kind = result
                    if not ours or fresh or attempt == 2:
                        result = _told(case, session, ours, kind, told)
                        break
                assert isinstance(result, Result)
                yield result
        finally:
            if apart is not None:
                apart.end()


def _told(case: Case, session: Session, ours: bool, kind: str, told: str) -> Result:
    """The verdict on a load that ended its process, or did not end."""
    result = blank(case, session.judged, rerun(case, session))
    if ours:
        return replace(result, status=ERROR, reason=f"the reference: {told}")
    return ended(result, session.judged, kind, told)


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

    def judge(self, number: int) -> Result | tuple[bool, str, str]:
        """The verdict on a case; if there is none: whether the reference was loading, what
        happened, and the kind of divergence that it is."""
        ours, limit = False, STARTING
        with suppress(BrokenPipeError):
            self._here.send(number)
        while True:
            if not self._here.poll(limit):
                return ours, f"no answer within {limit:g} seconds", "hang"
            try:
                message: Any = self._here.recv()
            except (EOFError, ConnectionResetError):
                return ours, self._ending(), "crash"
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
