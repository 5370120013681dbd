"""The pinned ring, swept: `python -m conformance.bench.ring [CHECKPOINT] [options]`.

Threads × slots of a thread × bytes of a slot, each timed in turn over the weights of a checkpoint
in one process, with the limits of the machine probed between them: pinned memory to the GPU, and
reads of the files on all cores. Shows a table and keeps it as `ring.json`. The ring's own settings
stand in `reference_loader.plan.workers`. Without a GPU the CPU's memory can stand in its place
(`--device cpu`): the same steps, and a rate that says nothing of a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from conformance.bench.bounds import machine
from conformance.bench.checkpoints import written
from conformance.bench.limits import read_files, sent
from conformance.bench.ring_sweep import Setting, Sweep
from conformance.bench.ring_table import show
from conformance.bench.workloads import CASES
from conformance.results.runs import now, run_folder, write_whole
from conformance.world.memory import forget
from reference_loader.fill.copies import Copy, Crew
from reference_loader.fill.ring import Lane
from reference_loader.formats.safetensors import MappedFile, read_header
from reference_loader.plan.workers import BESIDE

MIB = 2**20


class Weights:
    """The tensors of a checkpoint, mapped, and as much memory on the device to fill."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype | None) -> None:
        self.folder, self.device = folder, device
        self._copies = list(self._all_copies(dtype))
        self.stored = sum(copy.source.nbytes for copy in self._copies)

    def _all_copies(self, dtype: torch.dtype | None) -> Iterator[Copy]:
        """The copies of a sweep: every stored tensor to memory of its own on the device."""
        for path in sorted(self.folder.glob("*.safetensors")):
            file = MappedFile(path)
            for stored in read_header(path).values():
                source = file.view(stored)
                filled = torch.empty(stored.shape, dtype=dtype or stored.dtype, device=self.device)
                yield Copy(source, filled, file)

    def load(self, setting: Setting) -> float:
        """Fill the device's memory through a pinned ring of the setting; the seconds it took."""
        started = time.perf_counter()
        piece = setting.size - BESIDE
        lanes = [Lane(self.device, piece, setting.slots) for _ in range(setting.lanes)]
        with Crew(piece, list(lanes)) as crew:
            for copy in self._copies:
                crew.carry(copy)
        return time.perf_counter() - started

    def right(self) -> bool:
        """Whether the memory that the pinned ring filled holds what the files hold."""
        return all(
            torch.equal(copy.destination.cpu(), copy.source.to(copy.destination.dtype))
            for copy in self._copies
        )


def sweep(
    weights: Weights,
    settings: Sequence[Setting],
    rounds: int,
    cold: bool,
    step: Callable[[str], None],
) -> Sweep:
    """Time the pinned ring in all settings, and the limits, in turn, after a round that is dropped.

    Args:
        weights: what is loaded.
        settings: what is swept.
        rounds: how many times each is timed.
        cold: whether the page cache forgets the files before each.
        step: is told what is measured next.
    """
    works: dict[Setting | str, Callable[[], float]] = {
        setting: partial(weights.load, setting) for setting in settings
    }
    works["read on all cores"] = partial(read_files, weights.folder)
    if weights.device.type == "cuda":
        works["pinned memory to the GPU"] = partial(sent, weights.stored)
    seconds: dict[Setting | str, list[float]] = {what: [] for what in works}
    for number in range(rounds + 1):
        for what, work in works.items():
            step(f"round {number}/{rounds}")
            if cold:
                forget(weights.folder)
            taken = work()
            if number:
                seconds[what].append(taken)
    limits = {what: each for what, each in seconds.items() if isinstance(what, str)}
    rings = {what: each for what, each in seconds.items() if isinstance(what, Setting)}
    return Sweep(weights.stored, rings, limits)


def record(found: Sweep, device: str, cold: bool) -> dict[str, Any]:
    """The content of `ring.json`: all that the sweep measured, and what it was measured on."""
    on = {"machine": machine(), "device": device, "cold": cold}
    return {"schema": 1, "finished": now(), **on, **found.to_dict()}


def _numbers(text: str) -> list[int]:
    """An argument of the sweep: `2,4` as numbers."""
    return [int(number) for number in text.split(",")]


def _sweep_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of `python -m conformance.bench.ring`."""
    parser = argparse.ArgumentParser("python -m conformance.bench.ring", description=__doc__)
    add = parser.add_argument
    add("checkpoint", type=Path, nargs="?", help="a folder of safetensors; 1 GB is written if none")
    add("--device", type=torch.device, default=torch.device("cuda"))
    add("--dtype", help="cast on the device; as stored if not given")
    add("--lanes", type=_numbers, default=[1, 2, 4, 8, 16], metavar="N,N", help="threads")
    add("--slots", type=_numbers, default=[2, 3, 4], metavar="N,N", help="slots of a thread")
    add("--chunks", type=_numbers, default=[1, 2, 4, 8, 16, 32], metavar="N,N", help="MiB a slot")
    add("--rounds", type=int, default=5)
    add("--cold", action="store_true", help="have the page cache forget the files every time")
    add("--out", type=Path, help="folder of ring.json")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Sweep the pinned ring and show; 1 if it left other values than the files, 2 without a GPU."""
    from conformance.report.console import watching

    given = _sweep_options(arguments)
    if given.device.type == "cuda" and not torch.cuda.is_available():
        print("ring: there is no CUDA device; --device cpu takes the CPU's memory", file=sys.stderr)
        return 2
    folder = given.checkpoint or written(next(c for c in CASES if c.id == "same").weights)
    weights = Weights(folder, given.device, given.dtype and getattr(torch, given.dtype))
    settings = [
        Setting(lanes, slots, chunk * MIB)
        for lanes, slots, chunk in product(given.lanes, given.slots, given.chunks)
    ]
    with watching() as progress:
        advance = progress.task("Sweeping", (given.rounds + 1) * (len(settings) + 2))
        found = sweep(weights, settings, given.rounds, given.cold, advance)
    kept = run_folder(given.out, "ring") / "ring.json"
    write_whole(kept, json.dumps(record(found, given.device.type, given.cold), indent=1))
    show(found, kept)
    return 0 if weights.right() else 1


if __name__ == "__main__":
    raise SystemExit(main())
