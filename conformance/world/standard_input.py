"""Standard input that has ended: whoever reads it gets nothing, at once, and is counted.

A loader that asks whether code may run would else wait for an answer, or take one.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Ended(io.TextIOBase):
    """A text stream at its end.

    Attributes:
        reads: how often it was read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def readable(self) -> bool:
        """Whether the ended input can be read: it can, and holds nothing."""
        return True

    def read(self, size: int | None = -1) -> str:
        """Read the ended input: nothing."""
        self.reads += 1
        return ""

    def readline(self, size: int = -1) -> str:  # type: ignore[override]
        """A line of the ended input: nothing; `input` makes an EOFError of it."""
        return self.read()


@contextmanager
def ended_input() -> Iterator[Ended]:
    """Within, standard input (`sys.stdin` and the file descriptor 0) has ended."""
    before, stream = sys.stdin, Ended()
    with _empty_descriptor():
        sys.stdin = stream
        try:
            yield stream
        finally:
            sys.stdin = before


def end_input() -> None:
    """Let the standard input of this process, file descriptor 0, have ended for good."""
    empty = os.open(os.devnull, os.O_RDONLY)
    if empty != 0:  # which it is where the process had no standard input
        os.dup2(empty, 0)
        os.close(empty)


@contextmanager
def _empty_descriptor() -> Iterator[None]:
    """Within, file descriptor 0 is at its end; afterwards as it was."""
    try:
        kept = os.dup(0)
    except OSError:  # the process has no standard input
        yield
        return
    try:
        end_input()
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)
