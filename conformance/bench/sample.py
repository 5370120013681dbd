"""One contender in a fresh process: `python -m conformance.bench.sample ORDER`, both sides JSON.

Nothing but the standard library is imported before the clock starts.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from conformance.bench.contenders import Load, Task, by_name
from conformance.world import memory


@dataclass(frozen=True)
class Order:
    """What one process is to measure.

    Attributes:
        contender: its name.
        task: what it loads.
        again: how often it loads once more.
        cold: whether the page cache forgets the files first.
        sampled: whether a thread samples the memory, which slows the clocks.
        expected: bytes that the load may take at its peak, touched and freed before it.
        started: the parent's monotonic clock as it started this process.
    """

    contender: str
    task: Task
    again: int
    cold: bool
    sampled: bool
    expected: int
    started: float


@dataclass
class Sample:
    """What one process measured.

    Attributes:
        imports, first, touched: seconds; of importing, of the first load, and of the first load
            with every page of the weights touched, or on a GPU with everything arrived.
        again: seconds of every further load.
        whole: seconds from the start of the process until everything is touched, the warming of
            the memory aside.
        cpu: seconds of all processors in the first load.
        peaks: bytes, see `memory.Peaks`; over the first load and the touching.
        gpu: see `memory.on_gpu`; empty without one.
        digest: of every tensor of the state dict.
    """

    imports: float = 0.0
    first: float = 0.0
    touched: float = 0.0
    again: list[float] = field(default_factory=list)
    whole: float = 0.0
    cpu: float = 0.0
    peaks: dict[str, int] = field(default_factory=dict)
    gpu: dict[str, int] = field(default_factory=dict)
    digest: str = ""


def measure(order: Order) -> Sample:
    """Sample a contender in this process: import, load, touch; load again; then digest."""
    sample = Sample()
    imports = _clock(lambda: by_name(order.contender).prepare(order.task))
    load, sample.imports = imports
    paused = time.monotonic()
    _ready_process(order)
    paused = time.monotonic() - paused
    with memory.peaks(order.sampled) as peaks:
        model = _first_load(load, order, sample)
    sample.whole = time.monotonic() - order.started - paused
    sample.peaks = asdict(peaks)
    if order.task.device != "cpu":
        import torch

        sample.gpu = memory.on_gpu(torch)
    for _ in range(order.again):
        del model
        gc.collect()
        model, seconds = _clock(lambda: _arrived(load(), order.task.device))
        sample.again.append(seconds)
    sample.digest = digest(model)
    return sample


def _ready_process(order: Order) -> None:
    """Before the sampled load: warm the memory, or have the page cache forget the files."""
    gc.collect()
    memory.warm(order.expected)
    if order.sampled and order.task.device != "cpu":
        import torch

        torch.empty(1, device=order.task.device)  # its context is not the load's memory
    touch_itself()
    if order.cold:
        memory.forget(Path(order.task.folder))


def _first_load(load: Load, order: Order, sample: Sample) -> Any:
    """The first load of a sample, its seconds taken."""
    processors = time.process_time()
    model, sample.first = _clock(lambda: _arrived(load(), order.task.device))
    sample.cpu = time.process_time() - processors
    _, seconds = _clock(lambda: touch(model))
    sample.touched = sample.first + seconds
    return model


def _clock(call: Callable[[], Any]) -> tuple[Any, float]:
    """The result of a call and its seconds, for a sample."""
    started = time.perf_counter()
    result = call()
    return result, time.perf_counter() - started


def _arrived(model: Any, device: str) -> Any:
    """The sampled model, once all that was asked of a GPU is done."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize()
    return model


def touch_itself() -> None:
    """Run `touch` before the sample, so that its own code is not the load's memory."""
    import torch

    touch(torch.nn.Linear(memory.PAGE, 1))


def touch(model: Any) -> None:
    """Read a byte of every page of the sampled model's parameters on the CPU."""
    import torch

    for parameter in model.parameters():
        if parameter.device.type == "cpu":
            parameter.detach().reshape(-1).view(torch.uint8)[:: memory.PAGE].sum()


def digest(model: Any) -> str:
    """The sampled model's digest: one of all names and tensors that a checkpoint can hold."""
    import hashlib

    from conformance.results.fingerprint import fingerprints

    state = dict(sorted(model.state_dict().items()))
    digests = fingerprints(state)
    text = "\n".join(
        f"{name} {tensor.dtype} {list(tensor.shape)} {digests[name]}"
        for name, tensor in state.items()
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _main(text: str) -> None:
    """Print the sample that the order, JSON, asks for."""
    given = json.loads(text)
    order = Order(**{**given, "task": Task(**given["task"])})
    print(json.dumps(asdict(measure(order))))


if __name__ == "__main__":
    _main(sys.argv[1])
