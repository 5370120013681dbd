"""The state of the process around a load: noted, restored, and set as a caller may have set it."""

from __future__ import annotations

import hashlib
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import numpy
import torch
from torch import nn

from conformance.results.fingerprint import fingerprint
from conformance.world.hostile_filesystem import disk_full, unprivileged

# The member of torch that changes with the default dtype.
FOLLOWER = "Storage"

# The package as which transformers imports the code of checkpoints.
CODE = "transformers_modules"


class Library:
    """The functions and switches of torch and transformers, as they are on construction.

    Loaders replace some of them while they work; one that is not restored changes every later
    model. The environment variables are noted with them.
    """

    def __init__(self) -> None:
        self._kept = [(owner, dict(vars(owner))) for owner in _owners()]
        self._variables = dict(os.environ)

    def variables(self) -> list[str]:
        """The names of the environment variables that changed; their values may be secret."""
        names = {*self._variables, *os.environ}
        return sorted(n for n in names if self._variables.get(n) != os.environ.get(n))

    def replaced(self) -> list[str]:
        """The names of the functions and switches that were replaced."""
        return sorted(f"{owner.__name__}.{name}" for owner, name, _ in self._changes())

    def put_back(self) -> None:
        """Undo every replacement."""
        for owner, name, before in self._changes():
            setattr(owner, name, before)

    def _changes(self) -> list[tuple[Any, str, Any]]:
        return [
            (owner, name, before)
            for owner, kept in self._kept
            for name, before in kept.items()
            if vars(owner).get(name) is not before and name != FOLLOWER
        ]


def _owners() -> tuple[Any, ...]:
    from transformers import modeling_utils

    return torch, torch.nn.init, nn.Module, modeling_utils, modeling_utils.PreTrainedModel


def process_state(library: Library) -> dict[str, Any]:
    """Facts of the process; of library and environment variables, what changed since `library`."""
    return {
        "default_dtype": str(torch.get_default_dtype()),
        "default_device": str(torch.get_default_device()),
        "grad_enabled": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "rng": fingerprint(torch.get_rng_state()),
        "python_rng": _in_a_word(random.getstate()),
        "numpy_rng": _numpy_generator(),
        "environment": library.variables(),
        "warning_filters": _in_a_word(warnings.filters),
        "open_files": _open_files(),
        "library": library.replaced(),
        # Of `standard_input.Ended`, which counts.
        "input_reads": getattr(sys.stdin, "reads", 0),
    }


def _numpy_generator() -> str:
    state = numpy.random.get_state(legacy=False)["state"]
    return _in_a_word((state["key"].tobytes(), state["pos"]))


def _in_a_word(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def _open_files() -> int:
    """The open files, without sockets: a client of the Hub keeps its connections to reuse them."""
    folder = Path("/proc/self/fd")
    return sum(map(_is_file, folder.iterdir())) if folder.is_dir() else 0


def _is_file(descriptor: Path) -> bool:
    try:
        return not str(descriptor.readlink()).startswith("socket:")
    except OSError:  # the file descriptor of the listing itself
        return False


@contextmanager
def put_back(library: Library) -> Iterator[None]:
    """Afterwards restore what a loader changed: it must not affect the next observation."""
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    grad, threads, environment = torch.is_grad_enabled(), torch.get_num_threads(), dict(os.environ)
    try:
        yield
    finally:
        library.put_back()
        if torch.get_default_device() != device:
            torch.set_default_device(None)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        torch.set_num_threads(threads)
        if os.environ != environment:
            os.environ.clear()
            os.environ.update(environment)


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
