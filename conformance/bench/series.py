"""All samples of a case, taken in turn, each in a fresh process, and what they come to."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from conformance.bench import limits
from conformance.bench.checkpoints import size_of, written
from conformance.bench.contenders import STOCK, Contender, Task
from conformance.bench.limits import Probe
from conformance.bench.sample import Order, Sample
from conformance.bench.workloads import Case

ROOT = Path(__file__).parents[2]
TIMEOUT = 600.0  # seconds that one process may take
WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}  # bytes of an element


class NotMeasured(RuntimeError):
    """A process ended without a sample."""


@dataclass
class Row:
    """What one contender did in one case.

    Attributes:
        contender: its name.
        samples: one of each process; only their clocks count.
        memory: of a process whose memory was sampled, and whose clocks do not count.
        lacks: why there are no samples; empty where there are.
    """

    contender: str
    samples: list[Sample] = field(default_factory=list)
    memory: Sample = field(default_factory=Sample)
    lacks: str = ""

    def seconds(self, clock: str) -> list[float]:
        """One number a process of the contender's samples: of `again` its median."""
        found = (getattr(sample, clock) for sample in self.samples)
        return [statistics.median(each) if isinstance(each, list) else each for each in found]

    def median(self, clock: str) -> float:
        """The median of the contender's samples, of all processes."""
        return statistics.median(self.seconds(clock))


@dataclass
class Series:
    """A case and what everyone did in it.

    Attributes:
        case: see `cases.Case`.
        stored, result: bytes of the weights in the files and in the model.
        predicted: bytes of the host at the peak, as `conformance explain` says before the load.
        rows: contender to row.
        limit: seconds of the bare work, one number a round; empty where a load has none.
    """

    case: Case
    stored: int
    result: int
    predicted: int
    rows: dict[str, Row] = field(default_factory=dict)
    limit: list[float] = field(default_factory=list)

    @property
    def measured(self) -> list[Row]:
        """The contenders' rows that have samples."""
        return [row for row in self.rows.values() if row.samples]

    def ratio(self, contender: str, clock: str) -> float | None:
        """A contender's median to that of stock as it comes; None without one of them."""
        rows = [self.rows.get(name) for name in (contender, STOCK)]
        if not all(row is not None and row.samples for row in rows):
            return None
        ours, theirs = (row.median(clock) for row in rows if row)
        return ours / theirs

    def peak_ratio(self, contender: str) -> float | None:
        """A contender's peak to that of stock as it comes; None without one of them."""
        rows = [self.rows.get(name) for name in (contender, STOCK)]
        if not all(row is not None and row.samples for row in rows):
            return None
        ours, theirs = (row.memory.peaks["total"] for row in rows if row)
        return ours / theirs

    def share(self, contender: str) -> float | None:
        """How near to the limit: its median by that of the contender; None without one."""
        row = self.rows.get(contender)
        if row is None or not row.samples or not self.limit:
            return None
        return statistics.median(self.limit) / row.median(self.case.clock)

    @property
    def equal(self) -> bool:
        """Whether every process of every contender loaded the same tensors."""
        return len({sample.digest for row in self.measured for sample in row.samples}) <= 1

    def to_dict(self) -> dict[str, Any]:
        """A benchmark case with every sample of every contender, JSON-ready."""
        return {**asdict(self), "equal": self.equal}


def take(
    case: Case, contenders: Iterable[Contender], rounds: int, step: Callable[[str], None]
) -> Series:
    """Sample every contender of a case in turn, `rounds` times, and its memory once.

    Args:
        case: what is loaded.
        contenders: who loads.
        rounds: how many samples each gives.
        step: is told what is measured next.
    """
    folder = written(case.weights)
    task = Task(str(folder), case.dtype, case.model, case.device, case.converts)
    stored = size_of(folder)
    predicted = int(_json_of_process("predicted", json.dumps(asdict(task)), {}))
    series = Series(case, stored, _result_bytes(case, stored), predicted)
    there = {contender.name: contender for contender in contenders}
    series.rows = {name: Row(name, lacks=each.lacks(task)) for name, each in there.items()}
    for number in range(rounds + 1):
        step(f"{case.id} {number}/{rounds}")
        for row in series.rows.values():
            if not row.lacks:
                environment = there[row.contender].environment
                _sample(series, row, task, environment, sampled=number == rounds)
        if number < rounds and (asked := _probe(series, folder)) is not None:
            series.limit.append(float(_json_of_process("limits", limits.order(asked), {})))
    return series


def _result_bytes(case: Case, stored: int) -> int:
    """Bytes of the model that a benchmark's case loads."""
    if case.dtype == "auto":
        return stored
    return stored * WIDTH[case.dtype] // WIDTH[case.weights.dtype]


def _on_the_host(series: Series) -> int:
    """Bytes that a sampled load may take on the host: what it keeps, what it casts from, room."""
    if series.case.device != "cpu":
        return 0
    casts = series.case.dtype != "auto"
    return round(1.2 * (series.result + (series.stored if casts else 0)))


def _sample(
    series: Series, row: Row, task: Task, environment: Mapping[str, str], sampled: bool
) -> None:
    """Sample one contender in a fresh process, and add that to its row."""
    case = series.case
    order = Order(
        contender=row.contender,
        task=task,
        again=0 if sampled else case.again,
        cold=case.cold,
        sampled=sampled,
        expected=_on_the_host(series),
        started=time.monotonic(),
    )
    try:
        found = Sample(**_json_of_process("sample", json.dumps(asdict(order)), environment))
    except NotMeasured as error:
        row.lacks, row.samples = str(error), []
        return
    if sampled:
        row.memory = found
    else:
        row.samples.append(found)


def _probe(series: Series, folder: Path) -> Probe | None:
    """The bare work of a benchmark's case, whose limit is taken; of views there is none."""
    case = series.case
    stored = case.weights.dtype
    if case.cold:
        return Probe(str(folder), "read", stored, stored, series.stored)
    if case.device != "cpu":
        return Probe(str(folder), "device", stored, stored, series.stored)
    if case.dtype == "auto":
        return None
    size = series.stored // WIDTH[stored] * WIDTH[stored]
    return Probe(str(folder), "cast", stored, case.dtype, size)


def _json_of_process(module: str, order: str, environment: Mapping[str, str]) -> Any:
    """The JSON that a fresh process of the benchmark prints last.

    Raises:
        NotMeasured: with the last line it had to say.
    """
    command = [sys.executable, "-m", f"conformance.bench.{module}", order]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NotMeasured(f"took more than {TIMEOUT:.0f} s") from error
    if done.returncode:
        raise NotMeasured(_last_line(done.stderr.splitlines()) or f"exit code {done.returncode}")
    return json.loads(_last_line(done.stdout.splitlines()))


def _last_line(lines: Sequence[str]) -> str:
    """The last line that a process of the benchmark printed."""
    return lines[-1] if lines else ""
