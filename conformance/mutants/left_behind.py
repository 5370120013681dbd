"""Mutants of stage STA, continued: what a load leaves of its process and of its checkpoint."""

from __future__ import annotations

import functools
import gc
import json
import locale
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from conformance.mutants.planting import Act, Load, Mutant, around, coming_out

CASE, MAP = "sta/success", "sta/success-map"
REFUSED = "sta/refuses-wrong-shape"


def leaving(clause: str, case: str = CASE) -> Callable[[Act], Mutant]:
    """Stock, after which the function does something to the process, also if stock raised."""

    def planted(act: Act) -> Mutant:
        def generate(load: Load) -> Iterator[None]:
            try:
                yield
            finally:
                act(load)

        generate.__name__, generate.__doc__ = act.__name__, act.__doc__
        return around(clause, case)(generate)

    return planted


def failing(clause: str, case: str = REFUSED) -> Callable[[Act], Mutant]:
    """Stock, after which the function does something to the process only if stock raised."""

    def planted(act: Act) -> Mutant:
        def generate(load: Load) -> Iterator[None]:
            try:
                yield
            except BaseException:
                act(load)
                raise

        generate.__name__, generate.__doc__ = act.__name__, act.__doc__
        return around(clause, case)(generate)

    return planted


@leaving("STA-10")
def matrix_precision_left(load: Load) -> None:
    """Matrix products are taken in a lower precision afterwards."""
    torch.set_float32_matmul_precision("medium")


@leaving("STA-10", MAP)
def cudnn_switch_left(load: Load) -> None:
    """cuDNN tries its algorithms out afterwards."""
    torch.backends.cudnn.benchmark = True


@leaving("STA-10")
def deterministic_algorithms_left(load: Load) -> None:
    """Torch uses deterministic algorithms alone afterwards."""
    torch.use_deterministic_algorithms(True)


@failing("STA-10")
def anomaly_mode_left_by_a_failure(load: Load) -> None:
    """After a load that fails, autograd looks for anomalies."""
    torch.autograd.set_detect_anomaly(True)


@failing("STA-10", "sta/fails-in-constructor")
def autocast_left_by_a_failure(load: Load) -> None:
    """After a load that fails, autocast is on."""
    torch.set_autocast_enabled("cpu", True)


@leaving("STA-11")
def layers_left_undrawn(load: Load) -> None:
    """A linear layer that is made afterwards is not initialised."""
    nn.Linear.reset_parameters = lambda self: None  # type: ignore[method-assign]


@failing("STA-11", "sta/refuses-truncated-file")
def embeddings_left_undrawn_by_a_failure(load: Load) -> None:
    """An embedding that is made after a load that fails is not initialised."""
    nn.Embedding.reset_parameters = lambda self: None  # type: ignore[method-assign]


@leaving("STA-11", MAP)
def activation_replaced(load: Load) -> None:
    """An activation in the table of transformers is another one afterwards."""
    from transformers.activations import ACT2CLS

    dict.__setitem__(ACT2CLS, "gelu", ACT2CLS["relu"])


@leaving("STA-11", "sta/success-missing")
def json_replaced(load: Load) -> None:
    """The standard library's `json.loads` is a function of the loader's afterwards."""
    json.loads = functools.partial(json.loads)


@leaving("STA-12")
def garbage_collection_left_off(load: Load) -> None:
    """Garbage is not collected afterwards."""
    gc.disable()


@failing("STA-12", "sta/refuses-no-weights")
def garbage_collection_left_off_by_a_failure(load: Load) -> None:
    """Garbage is not collected after a load that fails."""
    gc.disable()


@leaving("STA-12", MAP)
def path_extended(load: Load) -> None:
    """The folder of the checkpoint is on `sys.path` afterwards."""
    sys.path.append(str(load.source))


@leaving("STA-12")
def recursion_limit_left(load: Load) -> None:
    """Functions may call themselves more often afterwards."""
    sys.setrecursionlimit(sys.getrecursionlimit() + 1000)


@leaving("STA-13")
def umask_left(load: Load) -> None:
    """New files cannot be read by others afterwards."""
    os.umask(0o077)


@leaving("STA-13", MAP)
def signal_ignored(load: Load) -> None:
    """The signal by which a terminal that is closed ends the process is ignored afterwards."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@around("STA-13", CASE)
def away_during_the_load(load: Load) -> Iterator[None]:
    """The working directory is another one while the load goes on."""
    before = Path.cwd()
    os.chdir(tempfile.gettempdir())
    try:
        yield
    finally:
        os.chdir(before)


@failing("STA-13")
def locale_left_by_a_failure(load: Load) -> None:
    """After a load that fails, the locale is another one."""
    names = ("C.UTF-8", "C")
    now = locale.setlocale(locale.LC_NUMERIC)
    locale.setlocale(locale.LC_NUMERIC, next(name for name in names if name != now))


@leaving("STA-14")
def log_level_left(load: Load) -> None:
    """Transformers logs errors alone afterwards."""
    logging.getLogger("transformers").setLevel(logging.ERROR)


@leaving("STA-14", MAP)
def root_handler_left(load: Load) -> None:
    """All log records go to a handler of the loader's afterwards."""
    logging.getLogger().addHandler(logging.NullHandler())


@failing("STA-14")
def logger_left_disabled_by_a_failure(load: Load) -> None:
    """After a load that fails, a logger is disabled."""
    logging.getLogger("transformers.modeling_utils").disabled = True


@leaving("STA-15")
def thread_left_running(load: Load) -> None:
    """A thread still waits afterwards."""
    threading.Thread(target=time.sleep, args=(3,), daemon=True).start()


@failing("STA-15", "sta/refuses-truncated-file")
def child_left_running_by_a_failure(load: Load) -> None:
    """A process that the loader started still runs after a load that fails."""
    subprocess.Popen(["sleep", "3"])


@leaving("STA-15", MAP)
def temporary_folder_left(load: Load) -> None:
    """A temporary folder is still there afterwards."""
    tempfile.mkdtemp(prefix="weights-")


@around("STA-16", "sta/interrupted")
def interrupt_swallowed(load: Load) -> Iterator[None]:
    """Ctrl-C during a load gives a model of random weights."""
    try:
        yield
    except KeyboardInterrupt:
        from transformers import LlamaForCausalLM

        load.model_class = LlamaForCausalLM
        load.make_up()


@around("STA-16", "sta/interrupted")
def interrupt_is_an_error(load: Load) -> Iterator[None]:
    """Ctrl-C during a load arrives as an error of the loader's."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise RuntimeError("the load was interrupted") from interrupt


@failing("STA-10", "sta/interrupted")
def precision_left_by_an_interrupt(load: Load) -> None:
    """After an interrupt, matrix products are taken in a lower precision."""
    torch.set_float32_matmul_precision("medium")


@leaving("STA-17")
def file_left_beside_the_weights(load: Load) -> None:
    """A file of the loader's lies in the checkpoint afterwards."""
    Path(load.source, ".loaded").write_text("yes", "utf-8")


@leaving("STA-17", MAP)
def mode_changed(load: Load) -> None:
    """The config can be written by its group afterwards."""
    path = Path(load.source, "config.json")
    path.chmod(path.stat().st_mode ^ 0o020)


@failing("STA-17")
def time_changed_by_a_failure(load: Load) -> None:
    """After a load that fails, the config looks as if it had just been written."""
    os.utime(Path(load.source, "config.json"))


@around("STA-17", "sta/success-missing")
def config_exchanged_for_the_load(load: Load) -> Iterator[None]:
    """The config is another file while the load goes on; then the old one is put back."""
    path = Path(load.source, "config.json")
    aside = path.with_name("config.json.before")
    shutil.copy2(path, aside)
    try:
        yield
    finally:
        aside.replace(path)


@around("CFG-40", "cfg/object")
def note_left_on_the_config(load: Load) -> Iterator[None]:
    """The config object that was passed has an attribute of the loader's afterwards."""
    yield
    if "config" in load.options:
        vars(load.options["config"])["_loaded"] = True


@around("CFG-40", "cfg/object")
def entries_of_the_config_exchanged(load: Load) -> Iterator[None]:
    """In the config object that was passed, a dict was exchanged for an equal one."""
    yield
    for name, value in list(vars(load.options.get("config", load)).items()):
        if isinstance(value, dict) and "config" in load.options:
            vars(load.options["config"])[name] = dict(value)


@around("STA-18", "sta/ends")
def program_ended(load: Load) -> Iterator[None]:
    """The loader raises `SystemExit` once it has loaded."""
    yield
    sys.exit("loaded")


@around("STA-18", "sta/ends")
def interrupt_made_up(load: Load) -> Iterator[None]:
    """The loader raises `KeyboardInterrupt`, and nobody pressed Ctrl-C."""
    yield
    raise KeyboardInterrupt


@coming_out("STA-18", "sta/ends")
def state_dict_returned(load: Load) -> None:
    """The loader returns the state dict of the model."""
    load.result = load.model.state_dict()


@coming_out("STA-18", "sta/ends")
def nothing_returned(load: Load) -> None:
    """The loader returns an empty tuple."""
    load.result = ()


def _process_ended(load: Load) -> Iterator[None]:
    """The loader ends the process."""
    yield
    os._exit(3)


def _process_killed(load: Load) -> Iterator[None]:
    """The loader reads memory that is not there, and the system ends the process."""
    yield
    os.kill(os.getpid(), signal.SIGSEGV)


def _never_returned(load: Load) -> Iterator[None]:
    """The loader waits for a lock that nobody holds."""
    yield
    threading.Event().wait()


def _ending(generate: Callable[[Load], Iterator[None]]) -> Mutant:
    """A mutant that ends its process, or blocks it for ever."""
    name = generate.__name__.removeprefix("_")
    return replace(around("STA-18", "sta/ends")(generate), name=name, ends=True)


MUTANTS = tuple(map(_ending, (_process_ended, _process_killed, _never_returned)))
