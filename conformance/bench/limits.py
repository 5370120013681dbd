"""What this machine could do at best, probed in a fresh process between the loads.

`python -m conformance.bench.limits PROBE`, both sides JSON: the seconds of the bare work that a
load cannot go without.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from conformance.world import memory

POPULATE_WRITE = 23  # madvise(2), since Linux 5.14
CORES = os.cpu_count() or 1
BLOCK = 8 * 2**20
TRIES = 5


@dataclass(frozen=True)
class Probe:
    """What a load must do at least.

    Attributes:
        folder: whose bytes are read, where `kind` needs them.
        kind: "cast": populate the result and cast once; "read": get the files' bytes off the
            disk; "device": read them from the page cache, or bring them from pinned memory to the
            GPU, whichever takes longer.
        stored, result: dtypes.
        size: bytes of the weights as stored.
    """

    folder: str
    kind: str
    stored: str
    result: str
    size: int


def probe(asked: Probe) -> float:
    """Seconds of the bare work of a load: the limit of this machine."""
    kinds: dict[str, Callable[[Probe], float]] = {"cast": _cast, "read": _read, "device": _device}
    return kinds[asked.kind](asked)


def _cast(asked: Probe) -> float:
    """The limit of a cast: fault the result's pages in and cast into them, on all cores.

    The least of several: the memory that one gave back is there for the next.
    """
    source = torch.ones(asked.size, dtype=torch.uint8).view(getattr(torch, asked.stored))
    dtype = getattr(torch, asked.result)
    memory.warm(round(1.2 * source.numel() * dtype.itemsize))
    return min(_cast_once(source, dtype) for _ in range(TRIES))


def _cast_once(source: torch.Tensor, dtype: torch.dtype) -> float:
    """Seconds of one bare cast from memory."""
    started = time.perf_counter()
    result = torch.empty(source.shape, dtype=dtype)
    _fault_pages_in(result)
    result.copy_(source)
    return time.perf_counter() - started


def _fault_pages_in(tensor: torch.Tensor) -> None:
    """Fault a tensor's pages in, on all cores, before the bare cast."""
    libc = ctypes.CDLL(None, use_errno=True)
    start = -(-tensor.data_ptr() // memory.PAGE) * memory.PAGE
    share = tensor.nbytes // CORES // memory.PAGE * memory.PAGE

    def populate(number: int) -> None:
        where = ctypes.c_void_p(start + number * share)
        if libc.madvise(where, ctypes.c_size_t(share), POPULATE_WRITE):
            ctypes.memset(where, 0, share)

    _on_all_cores(populate, range(CORES))


def _read(asked: Probe) -> float:
    """The limit of a cold load: seconds to read its weights from the disk."""
    memory.forget(Path(asked.folder))
    return read_files(Path(asked.folder))


def read_files(folder: Path) -> float:
    """Seconds to read all weights, block by block on all cores: the limit of any load."""
    paths = sorted(folder.glob("*.safetensors"))
    blocks = [(path, at) for path in paths for at in range(0, path.stat().st_size, BLOCK)]
    held = threading.local()
    started = time.perf_counter()
    _on_all_cores(partial(_read_block, held), blocks)
    return time.perf_counter() - started


def _read_block(held: threading.local, block: tuple[Path, int]) -> None:
    """Read a block of a file into this thread's buffer, for the limit of reading."""
    if not hasattr(held, "buffer"):
        held.buffer = bytearray(BLOCK)
    path, at = block
    with path.open("rb", buffering=0) as file:
        os.preadv(file.fileno(), [held.buffer], at)


def _device(asked: Probe) -> float:
    """The limit of a load to a GPU: the reads or the way from pinned memory, what is longer."""
    return max(read_files(Path(asked.folder)), sent(asked.size))


def sent(size: int) -> float:
    """Seconds for `size` bytes from pinned memory to the GPU: a limit of this machine."""
    source = torch.ones(size, dtype=torch.uint8).pin_memory()
    result = torch.empty(size, dtype=torch.uint8, device="cuda")
    torch.cuda.synchronize()
    started = time.perf_counter()
    result.copy_(source, non_blocking=True)
    torch.cuda.synchronize()
    return time.perf_counter() - started


def _on_all_cores(work: Callable[[Any], None], items: Iterable[Any]) -> None:
    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(work, items))


def order(asked: Probe) -> str:
    """The argument for a process that probes this machine's limit."""
    return json.dumps(asdict(asked))


if __name__ == "__main__":
    print(json.dumps(probe(Probe(**json.loads(sys.argv[1])))))
