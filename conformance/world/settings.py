"""The settings of a process: what a getter tells and the setter beside it changes.

`torch.get_float32_matmul_precision`, `sys.getrecursionlimit`, `torch.backends.cudnn.benchmark`:
they are found by enumeration. What has no such pair of functions is in `_others`.
"""

from __future__ import annotations

import gc
import locale
import logging
import multiprocessing
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from types import MappingProxyType, ModuleType
from typing import Any

import torch

# The modules whose getters and setters are paired; "*" stands for every module below.
MODULES = (
    *("torch", "torch._C", "torch.__future__", "torch.serialization", "torch._tensor_str"),
    *("torch.storage", "torch.hub", "torch.compiler", "torch.multiprocessing", "torch.backends.*"),
    *("sys", "gc", "threading", "socket", "logging", "locale", "decimal", "numpy"),
    *("transformers.utils.logging", "huggingface_hub.utils.logging"),
)

# What precedes and follows the name of a setting in its getter; what precedes it in its setter,
# and what follows.
PAIRS = (
    *(("get_", "", "set_", ""), ("is_", "", "set_", ""), ("is_", "_enabled", "set_", "")),
    *(("_get_", "", "_set_", ""), ("_is_", "", "_set_", ""), ("get", "", "set", "")),
    ("", "_enabled", "enable_", ""),
)

# Named like a setting, and why it is left out.
LEFT_OUT = MappingProxyType(
    {
        "get_start_method": "asking for it decides it",
        "get_rng_state": "compared as a fact of its own",
        "get_default_dtype": "compared as a fact of its own",
        "get_default_device": "compared as a fact of its own",
        "is_grad_enabled": "compared as a fact of its own",
        "get_num_threads": "compared as a fact of its own",
        "_get_thread_name": "of the thread that asks",
        "_get_tracing_state": "an object for each call",
    }
)


@dataclass(frozen=True)
class Setting:
    """One setting of the process.

    Attributes:
        name: of its getter, dotted.
        read: its value.
        write: sets it; None if nothing does.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], Any] | None = None

    def restore(self, value: Any) -> None:
        """Set the value again that a getter told: some setters take its parts."""
        attempts: list[Callable[[], Any]] = []
        if self.write is not None:
            attempts.append(partial(self.write, value))
            if isinstance(value, tuple):
                attempts.append(partial(self.write, *value))
            if isinstance(value, dict):
                attempts.append(partial(self.write, **value))
        for attempt in attempts:
            if same(self.read(), value):
                return
            with suppress(Exception):
                attempt()


@cache
def settings() -> tuple[Setting, ...]:
    """Every setting, found once in a process."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what is deprecated has a successor
        found = [each for each in _paired() if _can_be_compared(each)]
    found += [each for each in _others() if _can_be_compared(each)]
    # The same function under two names is one setting.
    return tuple({id(each.read): each for each in reversed(found)}.values())


def same(value: Any, other: Any) -> bool:
    """Whether two values of a setting are the same; an object is the same only as itself."""
    if value is other:
        return True
    return type(value) is type(other) and _is_plain(value) and bool(value == other)


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return not isinstance(value, torch.Tensor) and not hasattr(value, "__array__")


def _can_be_compared(setting: Setting) -> bool:
    """Whether the getter takes no argument, and tells the same twice."""
    try:
        return same(setting.read(), setting.read())
    except Exception:
        return False


def _paired() -> Iterator[Setting]:
    for name in sorted(sys.modules):
        module = sys.modules[name]
        if isinstance(module, ModuleType) and _is_chosen(name):
            yield from _of_module(name, vars(module))
            yield from _properties(name, module)


def _is_chosen(name: str) -> bool:
    return name in MODULES or any(
        each.endswith("*") and name.startswith(each[:-1]) for each in MODULES
    )


def _of_module(module: str, members: dict[str, Any]) -> Iterator[Setting]:
    """The settings of a module that have a pair of functions there."""
    for getter, read in list(members.items()):
        for before, after, set_before, set_after in PAIRS:
            if not (getter.startswith(before) and getter.endswith(after)):
                continue
            name = getter[len(before) : len(getter) - len(after)]
            write = members.get(f"{set_before}{name}{set_after}")
            plain = callable(read) and not isinstance(read, type) and getter not in LEFT_OUT
            if plain and callable(write) and write is not read:
                yield Setting(f"{module}.{getter}", read, write)


def _properties(name: str, module: ModuleType) -> Iterator[Setting]:
    """The settings of a module that has properties to set, as torch's backends have."""
    for attribute, found in vars(type(module)).items():
        if hasattr(type(found), "__set__") and not attribute.startswith("__"):
            read = partial(getattr, module, attribute)
            yield Setting(f"{name}.{attribute}", read, partial(setattr, module, attribute))


def _others() -> Iterator[Setting]:
    """The settings that have no pair of functions."""
    yield Setting("gc.isenabled", gc.isenabled, lambda on: gc.enable() if on else gc.disable())
    yield Setting("sys.path", _search_path, partial(sys.path.__setitem__, slice(None)))
    yield Setting("os.umask", _umask, os.umask)
    yield Setting("os.getcwd", os.getcwd, os.chdir)
    yield Setting("os.nice", lambda: os.nice(0))
    yield Setting("os.sched_getaffinity", lambda: sorted(os.sched_getaffinity(0)), _use_cores)
    yield Setting("locale.setlocale", partial(locale.setlocale, locale.LC_ALL), _set_locale)
    yield Setting("logging.disable", lambda: logging.root.manager.disable, logging.disable)
    yield Setting(
        "multiprocessing.get_start_method",
        partial(multiprocessing.get_start_method, allow_none=True),
        partial(multiprocessing.set_start_method, force=True),
    )
    yield Setting(
        "signal.pthread_sigmask",
        lambda: sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        partial(signal.pthread_sigmask, signal.SIG_SETMASK),
    )
    for number in signal.valid_signals():
        name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
        yield _by_number(f"signal.getsignal({name})", number, signal.getsignal, signal.signal)
    for timer in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF"):
        number = getattr(signal, timer)
        yield _by_number(f"signal.getitimer({timer})", number, _runs, _stop)
    for limit in (name for name in dir(resource) if name.startswith("RLIMIT_")):
        number, (read, write) = getattr(resource, limit), (resource.getrlimit, resource.setrlimit)
        yield _by_number(f"resource.getrlimit({limit})", number, read, write)
    yield from _of_torch()


def _by_number(
    name: str, number: int, read: Callable[[int], Any], write: Callable[[int, Any], Any]
) -> Setting:
    """A setting whose getter and setter take its number first."""
    return Setting(name, partial(read, number), partial(write, number))


def _runs(timer: int) -> bool:
    """Whether the timer runs."""
    return signal.getitimer(timer) != (0.0, 0.0)


def _stop(timer: int, ran: bool) -> None:
    """Stop the timer unless it ran before."""
    if not ran:
        signal.setitimer(timer, 0.0)


def _of_torch() -> Iterator[Setting]:
    """Settings of torch whose getter takes an argument or has a setter of another name."""
    yield Setting("torch.is_inference_mode_enabled", torch.is_inference_mode_enabled)
    yield Setting(
        "torch.is_deterministic_algorithms_warn_only_enabled",
        torch.is_deterministic_algorithms_warn_only_enabled,
        lambda warn: torch.use_deterministic_algorithms(
            torch.are_deterministic_algorithms_enabled(), warn_only=warn
        ),
    )
    for device in ("cpu", "cuda"):
        for read, write in (
            (torch.is_autocast_enabled, torch.set_autocast_enabled),
            (torch.get_autocast_dtype, torch.set_autocast_dtype),
        ):
            name = f"torch.{read.__name__}({device})"
            yield Setting(name, partial(read, device), partial(write, device))
    yield Setting("torch.overrides", _function_modes)
    yield Setting("torch._C._len_torch_dispatch_stack", torch._C._len_torch_dispatch_stack)


def _function_modes() -> list[str]:
    """The modes that change what functions of torch do; a default device is compared itself."""
    modes = map(torch._C._get_function_stack_at, range(torch._C._len_torch_function_stack()))
    names = [type(mode).__name__ for mode in modes]
    return [name for name in names if name != "DeviceContext"]


def _search_path() -> list[str]:
    """`sys.path` without the folder of trusted code: the model may import more of it later."""
    code = sys.modules.get("transformers.dynamic_module_utils")
    return [place for place in sys.path if place != getattr(code, "HF_MODULES_CACHE", None)]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _use_cores(cores: list[int]) -> None:
    os.sched_setaffinity(0, cores)


def _set_locale(value: str) -> None:
    locale.setlocale(locale.LC_ALL, value)
