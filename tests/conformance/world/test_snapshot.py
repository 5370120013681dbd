"""What a load could leave changed in its process is found by enumeration, and put back."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from conformance.world.libraries import ALL, ALLOWED, USUAL
from conformance.world.settings import LEFT_OUT, Setting, settings
from conformance.world.snapshot import Snapshot, own_temporary_folder


@pytest.fixture
def snapshot() -> Iterator[Snapshot]:
    with own_temporary_folder():
        taken = Snapshot()
        yield taken
        taken.put_back()


# What a loader may do, to the name by which it is told.
CHANGES: dict[str, Callable[[], object]] = {
    "torch.get_float32_matmul_precision": lambda: torch.set_float32_matmul_precision("medium"),
    "torch.get_deterministic_debug_mode": lambda: torch.use_deterministic_algorithms(True),
    "torch.is_anomaly_enabled": lambda: torch.autograd.set_detect_anomaly(True),
    "torch.backends.cudnn.benchmark": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "torch.is_autocast_enabled(cpu)": lambda: torch.set_autocast_enabled("cpu", True),
    "gc.isenabled": gc.disable,
    "sys.path": lambda: sys.path.append("elsewhere"),
    "sys.getrecursionlimit": lambda: sys.setrecursionlimit(sys.getrecursionlimit() + 1),
    "os.umask": lambda: os.umask(0o077),
    "signal.getsignal(SIGHUP)": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    "logger torch": lambda: logging.getLogger("torch").setLevel(1),
    "logger ": lambda: logging.getLogger().addFilter(lambda record: True),
    "thread left": lambda: threading.Thread(
        target=time.sleep, args=(2,), daemon=True, name="left"
    ).start(),
    "child process": lambda: subprocess.Popen(["sleep", "2"]),
    "temporary file left": lambda: Path(tempfile.gettempdir(), "left").mkdir(),
    "os.chdir during the load": lambda: os.chdir("."),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_has_a_name_and_is_put_back(name: str, snapshot: Snapshot) -> None:
    assert snapshot.changes() == {}

    CHANGES[name]()

    assert any(found.startswith(name) for found in snapshot.changes())
    snapshot.put_back()
    if not name.startswith(("thread", "child", "temporary", "os.chdir")):
        assert Snapshot().changes() == {}
        assert name not in snapshot.changes()


def test_functions_classes_and_tables_are_compared_by_identity(snapshot: Snapshot) -> None:
    json.loads = json.dumps  # type: ignore[assignment]
    nn.Linear.reset_parameters = nn.Linear.extra_repr  # type: ignore[method-assign, assignment]
    sys.modules["json"].__dict__["added"] = 1  # what is added to a module is allowed

    found = snapshot.replaced()

    assert {"json.loads", "torch.nn.modules.linear.Linear.reset_parameters"} <= set(found)
    assert len(found) == 2
    snapshot.put_back()
    assert snapshot.replaced() == []
    del json.added  # type: ignore[attr-defined]


def test_every_setting_is_found_once_and_by_enumeration() -> None:
    names = [each.name for each in settings()]

    assert len(names) == len(set(names))
    assert len(names) > 150
    assert not {name.rpartition(".")[2] for name in names} & {"get_rng_state", "get_num_threads"}


def test_a_setter_may_take_the_parts_of_what_its_getter_tells() -> None:
    kept = [1, 2]
    setting = Setting("kept", lambda: tuple(kept), lambda *parts: kept.__setitem__(slice(2), parts))
    kept[:] = [3, 4]

    setting.restore((1, 2))

    assert kept == [1, 2]


def test_whatever_is_allowed_has_its_reason() -> None:
    assert all(len(reason.split()) >= 1 for reason in {**ALLOWED, **LEFT_OUT}.values())


def test_the_packages_of_every_load_are_among_all() -> None:
    assert {name.partition(".")[0] for name in USUAL} <= set(ALL)
