"""Mutants of stage STA: process state."""

from __future__ import annotations

import os
import random
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from conformance.mutants.planting import Load, around, coming_out

VARIABLE = "LEFT_BY_A_MUTANT"


@around("STA-1", "sta/success")
def default_dtype_left(load: Load) -> Iterator[None]:
    """The process's default dtype is float16 afterwards."""
    yield
    torch.set_default_dtype(torch.float16)


@around("STA-1", "sta/success")
def default_device_left(load: Load) -> Iterator[None]:
    """The process's default device is meta afterwards."""
    yield
    torch.set_default_device("meta")


@around("STA-1", "sta/success")
def grad_mode_left(load: Load) -> Iterator[None]:
    """Gradients are off afterwards."""
    yield
    torch.set_grad_enabled(False)


@around("STA-1", "sta/success")
def thread_count_left(load: Load) -> Iterator[None]:
    """Torch has another number of threads afterwards."""
    yield
    torch.set_num_threads(torch.get_num_threads() + 1)


@around("STA-1", "sta/success")
def environment_left(load: Load) -> Iterator[None]:
    """An environment variable is set afterwards."""
    yield
    os.environ[VARIABLE] = "1"


@around("STA-1", "sta/success")
def warnings_silenced(load: Load) -> Iterator[None]:
    """Warnings are ignored afterwards."""
    yield
    warnings.simplefilter("ignore")


@around("STA-11", "sta/success")
def initialisation_left_off(load: Load) -> Iterator[None]:
    """Torch's functions of initialisation do nothing afterwards."""
    yield
    nn.init.normal_ = lambda tensor, *given, **named: tensor


@around("STA-1", "sta/success")
def file_left_open(load: Load) -> Iterator[None]:
    """The config is still open afterwards."""
    yield
    load.model.left_open = Path(load.source, "config.json").open()  # noqa: SIM115


@around("STA-2", "res/no-weights")
def numbers_drawn_by_a_failure(load: Load) -> Iterator[None]:
    """A load that fails has drawn a random number."""
    try:
        yield
    except Exception:
        torch.rand(1)
        raise


@around("STA-2", "res/no-weights")
def python_numbers_drawn_by_a_failure(load: Load) -> Iterator[None]:
    """A load that fails has drawn a random number from Python's generator."""
    try:
        yield
    except Exception:
        random.random()
        raise


@around("STA-2", "mis/wrong-shape")
def default_dtype_left_by_a_failure(load: Load) -> Iterator[None]:
    """The default dtype is put back only where the load succeeds."""
    try:
        yield
    except Exception:
        torch.set_default_dtype(torch.bfloat16)
        raise


@around("STA-3", "sta/threads")
def environment_torn(load: Load) -> Iterator[None]:
    """An environment variable is set for the time of a load, and put back to what it was."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(threading.get_ident())
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


@coming_out("STA-4", "sta/default-dtype")
def default_dtype_obeyed(load: Load) -> None:
    """The model is in the caller's default dtype where that is not float32."""
    if torch.get_default_dtype() != torch.float32:
        load.model.to(torch.get_default_dtype())


@around("STA-4", "sta/no-grad")
def no_grad_obeyed(load: Load) -> Iterator[None]:
    """Where the caller has gradients off, no parameter takes one."""
    yield
    if not torch.is_grad_enabled():
        load.model.requires_grad_(False)


@around("STA-4", "sta/inference-mode")
def inference_tensors(load: Load) -> Iterator[None]:
    """Under the caller's inference mode, parameters are tensors that no gradient can pass."""
    yield
    if torch.is_inference_mode_enabled():
        for module in load.model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(parameter.data.clone()))


@around("STA-5", "sta/device-meta")
def default_device_passed_over(load: Load) -> Iterator[None]:
    """Whatever the caller's default device, the model is on the CPU."""
    with torch.device("cpu"):
        yield


@around("STA-6", "sta/fails-in-eval")
def own_error_wrapped(load: Load) -> Iterator[None]:
    """An error of the model class's own arrives as a RuntimeError."""
    try:
        yield
    except Exception as error:
        raise RuntimeError("the model could not be loaded") from error
