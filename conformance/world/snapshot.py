"""One snapshot of all that a load could leave changed in its process, made by enumeration.

What libraries hold (`libraries`), the settings (`settings`), environment, loggers, threads, child
processes, modules, temporary files, and the working directory, also while the load goes on. What
may change is listed one by one: `libraries.ALLOWED`, and `ALLOWED_THREADS` here.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from conformance.world.libraries import ALL, USUAL, libraries
from conformance.world.settings import Setting, same, settings

# Threads that may be left, by the name of their class, and why.
ALLOWED_THREADS = MappingProxyType({"TMonitor": "one a process, of the first progress bar"})

# Loggers that may change, by how their names begin, and why.
ALLOWED_LOGGERS = MappingProxyType({"torch._": "set up by torch when it imports its compiler"})

# Seconds in which a thread that is told to end has ended.
GRACE = 1.0

# The package as which transformers imports the code of checkpoints.
CODE = "transformers_modules"

ABSENT = "absent"

# What changed, by name: before and after.
Changes = dict[str, tuple[Any, Any]]


class Snapshot:
    """The process as it is on construction; every replacement and setting can be put back."""

    def __init__(self, whole: bool = False) -> None:
        """Args: whether all libraries are compared, or those that every load touches."""
        self._libraries = libraries(ALL if whole else USUAL)
        self._variables = dict(os.environ)
        self._settings = [(each, each.read()) for each in settings()]
        self._loggers = _loggers()
        self._threads = set(threading.enumerate())
        self._children = _children()
        self._modules = set(sys.modules)
        # Counting takes as long as a load.
        self._frozen = gc.get_freeze_count() if whole else None
        self._files = _temporary_files()
        self._moves = len(_moves())
        # What the last comparison found; None before.
        self._replaced: list[str] | None = None
        self._differing: list[tuple[Setting, Any]] | None = None

    def variables(self) -> list[str]:
        """The names of the environment variables that changed; their values may be secret."""
        names = {*self._variables, *os.environ}
        return sorted(n for n in names if self._variables.get(n) != os.environ.get(n))

    def replaced(self) -> list[str]:
        """The names of the functions, switches and entries of tables that were replaced."""
        self._replaced = self._libraries.replaced()
        return self._replaced

    def changes(self) -> Changes:
        """What else changed, by name; what is as it was is left out."""
        found: Changes = {}
        self._differing = []
        for setting, before in self._settings:
            if not same(after := setting.read(), before):
                self._differing.append((setting, before))
                found[setting.name] = _shown(before, after), _shown(after, before)
        loggers = _loggers()
        for name, before in self._loggers.items():
            if loggers[name] != before and not name.startswith(tuple(ALLOWED_LOGGERS)):
                found[f"logger {name}"] = _of_logger(before), _of_logger(loggers[name])
        for thread in self._new_threads():
            found[f"thread {thread.name}"] = ABSENT, "daemon" if thread.daemon else "not a daemon"
        for child in sorted(_children() - self._children):
            found[f"child process {_command_of(child)}"] = ABSENT, "runs"
        for name in sorted(self._modules - set(sys.modules)):
            if name.partition(".")[0] != CODE:
                found[f"sys.modules {name}"] = "imported", ABSENT
        for name in sorted(_temporary_files() - self._files):
            found[f"temporary file {name}"] = ABSENT, "left"
        if moves := _moves()[self._moves :]:
            found["os.chdir during the load"] = "not called", f"to {moves[0]}"
        if self._frozen is not None and gc.get_freeze_count() > self._frozen:
            found["gc.freeze"] = "not called", "called"
        return found

    def put_back(self) -> None:
        """Undo every replacement, and restore what can be set."""
        if self._replaced != []:
            self._libraries.put_back()
        for setting, before in self._settings if self._differing is None else self._differing:
            setting.restore(before)
        for name, (level, disabled, propagate, handlers, filters) in self._loggers.items():
            logger = logging.getLogger(name or None)
            if (logger.level, logger.disabled) != (level, disabled):
                logger.setLevel(level)
                logger.disabled = disabled
            logger.propagate, logger.handlers[:], logger.filters[:] = propagate, handlers, filters
        if os.environ != self._variables:
            os.environ.clear()
            os.environ.update(self._variables)

    def _new_threads(self) -> list[threading.Thread]:
        """The threads that run now and did not; one that is about to end is waited for."""
        until = time.monotonic() + GRACE
        found = [
            each
            for each in threading.enumerate()
            if each not in self._threads and type(each).__name__ not in ALLOWED_THREADS
        ]
        for thread in found:
            thread.join(max(0.0, until - time.monotonic()))
        return [thread for thread in found if thread.is_alive()]


def _temporary_files() -> set[str]:
    """The names of the temporary files."""
    return {path.name for path in Path(tempfile.gettempdir()).iterdir()}


def _loggers() -> dict[str, tuple[int, bool, bool, tuple[Any, ...], tuple[Any, ...]]]:
    """Every logger by name, "" the root: level, disabled, propagate, handlers, filters."""
    named = [
        (name, logger)
        for name, logger in list(logging.root.manager.loggerDict.items())
        if isinstance(logger, logging.Logger)
    ]
    return {
        name: (
            logger.level,
            logger.disabled,
            logger.propagate,
            tuple(logger.handlers),
            tuple(logger.filters),
        )
        for name, logger in [("", logging.root), *named]
    }


def _of_logger(state: tuple[int, bool, bool, tuple[Any, ...], tuple[Any, ...]]) -> str:
    level, disabled, propagate, handlers, filters = state
    return (
        f"level {logging.getLevelName(level)}, {len(handlers)} handlers, {len(filters)} filters"
        f"{', disabled' if disabled else ''}{'' if propagate else ', does not propagate'}"
    )


def _shown(value: Any, other: Any) -> Any:
    """The value of a setting as plain data; of a list, what the other list lacks."""
    if isinstance(value, list) and isinstance(other, list):
        return f"{len(value)} entries, with {[each for each in value if each not in other]}"
    return value if isinstance(value, (bool, int, float, str)) else repr(value)


def _children() -> set[int]:
    """The child processes, where the system lists them."""
    tasks = Path("/proc/self/task")
    found: set[int] = set()
    for task in tasks.iterdir() if tasks.is_dir() else ():
        try:
            found.update(map(int, (task / "children").read_text("ascii").split()))
        except OSError:  # the thread has ended, or the kernel keeps no list
            continue
    return found


def _command_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text("utf-8").strip()
    except OSError:
        return "(ended)"


@cache
def _moves() -> list[str]:
    """Where the process went, whoever moved it and for how long; noted from the first call on."""
    moves: list[str] = []

    def hook(event: str, arguments: Any) -> None:
        if event == "os.chdir":
            moves.append(str(arguments[0]))

    sys.addaudithook(hook)
    return moves


@cache
def _temporary_folder() -> str:
    """The folder of temporary files of this process's loads: others use the system's as well."""
    folder = tempfile.mkdtemp(prefix="conformance-temporary-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def own_temporary_folder() -> Iterator[None]:
    """Within, temporary files go to a folder where only the loads of this process put theirs."""
    folder, before = _temporary_folder(), tempfile.tempdir
    tempfile.tempdir = folder
    try:
        yield
    finally:
        tempfile.tempdir = before
