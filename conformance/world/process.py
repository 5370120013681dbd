"""The state of the process around a load: noted, restored, and set as a caller may have set it."""

from __future__ import annotations

import gc
import hashlib
import random
import signal
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import numpy
import torch

from conformance.results.fingerprint import fingerprint
from conformance.world.hostile_filesystem import disk_full, unprivileged
from conformance.world.snapshot import CODE, Snapshot


def process_state(snapshot: Snapshot) -> dict[str, Any]:
    """Facts of the process: some always, all others if they changed since the snapshot."""
    changes = snapshot.changes()
    return base_state(snapshot) | {name: after for name, (_, after) in changes.items()}


def base_state(snapshot: Snapshot | None = None, opened: Any = None) -> dict[str, Any]:
    """The facts of the process that are always told.

    Args:
        snapshot: of libraries and environment variables, what changed since this is told: nothing,
            if it is being taken.
        opened: the `open_files` that are expected: a file that is garbage counts as closed.
    """
    return {
        "default_dtype": str(torch.get_default_dtype()),
        "default_device": str(torch.get_default_device()),
        "grad_enabled": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "rng": fingerprint(torch.get_rng_state()),
        "python_rng": _in_a_word(random.getstate()),
        "numpy_rng": _numpy_generator(),
        "environment": snapshot.variables() if snapshot else [],
        "warning_filters": _in_a_word(warnings.filters),
        "open_files": _open_files(opened),
        "library": snapshot.replaced() if snapshot else [],
        # Of `standard_input.Ended`, which counts.
        "input_reads": getattr(sys.stdin, "reads", 0),
    }


def _numpy_generator() -> str:
    state = numpy.random.get_state(legacy=False)["state"]
    return _in_a_word((state["key"].tobytes(), state["pos"]))


def _in_a_word(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def _open_files(expected: dict[str, int] | None = None) -> dict[str, int]:
    """The open file descriptors, by what they lead to; garbage is collected if not as expected.

    A collection takes too long for every load. It closes, for example, the connection on which a
    client before huggingface_hub 1.0 got an error.
    """
    folder = Path("/proc/self/fd")
    kinds = Counter(map(_kind_of, folder.iterdir() if folder.is_dir() else ()))
    found = {kind: count for kind, count in sorted(kinds.items()) if kind}
    if expected in (None, found):
        return found
    gc.collect()
    return _open_files()


def _kind_of(descriptor: Path) -> str:
    """`file`, or `socket`, `pipe` and the like; empty for the descriptor of the listing itself."""
    try:
        aim = str(descriptor.readlink())
    except OSError:
        return ""
    return "file" if aim.startswith("/") else aim.partition(":")[0]


@contextmanager
def put_back(snapshot: Snapshot) -> Iterator[None]:
    """Afterwards restore what a loader changed: it must not affect the next observation."""
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    grad, threads, filters = torch.is_grad_enabled(), torch.get_num_threads(), warnings.filters[:]
    try:
        yield
    finally:
        if torch.get_default_device() != device:
            torch.set_default_device(None)
        snapshot.put_back()
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        torch.set_num_threads(threads)
        warnings.filters[:] = filters  # type: ignore[index]


@contextmanager
def noted_interrupts(expected: bool = False) -> Iterator[list[int]]:
    """Within, an interrupt of the process is noted, and raises `KeyboardInterrupt` as ever.

    A loader may raise that error too; then nothing is noted.

    Args:
        expected: whether an interrupt is part of the case: then it also raises where the process
            ignores interrupts, as a shell has its background jobs do.
    """
    noted: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    usual = before is signal.default_int_handler or (expected and before is signal.SIG_IGN)
    if not usual or threading.current_thread() is not threading.main_thread():
        yield noted
        return

    def interrupted(number: int, frame: Any) -> None:
        noted.append(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Within, new memory is filled with NaN, so that uninitialised tensors show every time."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)


@contextmanager
def _module_cache() -> Iterator[None]:
    """An empty folder for the code of checkpoints, which transformers copies before it runs it."""
    from transformers import dynamic_module_utils

    path = list(sys.path)
    before = {name: module for name, module in sys.modules.items() if _is_code(name)}
    with (
        TemporaryDirectory(prefix="conformance-modules-") as folder,
        patch.object(dynamic_module_utils, "HF_MODULES_CACHE", folder),
    ):
        # A package that was imported from another folder would be looked into for this one's code,
        # and so would one that lies in a folder which an earlier load put on the path.
        _forget_code()
        sys.path[:] = [entry for entry in path if not Path(entry, CODE).is_dir()]
        try:
            yield
        finally:
            sys.path[:] = path
            _forget_code()
            sys.modules.update(before)


def _forget_code() -> None:
    for name in [name for name in sys.modules if _is_code(name)]:
        del sys.modules[name]


def _is_code(module: str) -> bool:
    return module.partition(".")[0] == CODE


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


# What a caller may have set when the load begins.
SURROUNDINGS: Mapping[str, Callable[[], AbstractContextManager[Any]]] = MappingProxyType(
    {
        "default-dtype-bfloat16": lambda: _default_dtype(torch.bfloat16),
        "default-dtype-float64": lambda: _default_dtype(torch.float64),
        "no-grad": torch.no_grad,
        "inference-mode": torch.inference_mode,
        "default-device-meta": lambda: _default_device("meta"),
        "device-meta": lambda: torch.device("meta"),
        "device-cpu": lambda: torch.device("cpu"),
        "unprivileged": unprivileged,
        "disk-full": disk_full,
        "own-module-cache": _module_cache,
    }
)


@contextmanager
def surrounded(under: tuple[str, ...]) -> Iterator[None]:
    """Within, the process is as a caller has set it, by names of `SURROUNDINGS`."""
    with ExitStack() as stack:
        for name in under:
            stack.enter_context(SURROUNDINGS[name]())
        yield
