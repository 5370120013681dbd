"""The readers that a stranger's bytes reach first, each as a function of those bytes.

A reader may return or raise a `LoadError`. Anything else, more than a second, or more than 200 MB
for a file of up to 64 kB, is a finding.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import AutoModelForCausalLM, LlamaForCausalLM

from reference_loader.errors import LoadError
from reference_loader.formats.pickle import PickledFile, read_pickled_header
from reference_loader.formats.safetensors import MappedFile, read_header
from reference_loader.model.choose import choose
from reference_loader.options import Options
from reference_loader.plan.inventory import take_inventory
from reference_loader.source.checkpoint import of_file
from reference_loader.source.config_file import read_config

LARGEST = 1 << 16
SECONDS, BYTES = 1.0, 200_000_000

Reader = Callable[[Path], None]


def header(folder: Path) -> None:
    """The header of a safetensors file, and a view of every tensor that it has."""
    path = folder / "model.safetensors"
    stored = read_header(path)
    mapped = MappedFile(path) if stored else None
    for tensor in stored.values():
        assert mapped is not None
        assert mapped.view(tensor).shape == tensor.shape


def index(folder: Path) -> None:
    """A shard index, and what is in the shards that it names."""
    take_inventory(of_file(folder / "model.safetensors.index.json", "given"))


def config(folder: Path) -> None:
    """A config, by itself and as the one that a class or an Auto class reads."""
    read_config(folder)
    for model_class in (LlamaForCausalLM, AutoModelForCausalLM):
        choose(str(folder), folder, (), Options(model_class=model_class))


def pickled(folder: Path) -> None:
    """A pickled file, and a view of every tensor that it has.

    A few bytes can describe a tensor of any size, by a stride of zero. A load takes one only where
    the model has a place of that size, which it takes up anyway; here there is no model.
    """
    path = folder / "pytorch_model.bin"
    stored = read_pickled_header(path)
    held = PickledFile(path)
    for tensor in stored.values():
        if 0 < tensor.nbytes <= LARGEST:
            held.view(tensor)


READERS: Mapping[str, tuple[str, Reader]] = {
    "header": ("model.safetensors", header),
    "index": ("model.safetensors.index.json", index),
    "config": ("config.json", config),
    "pickled": ("pytorch_model.bin", pickled),
}


class Finding(AssertionError):
    """A reader did what it must not."""


class Fuzzed:
    """One reader, and a folder to put bytes into; called with bytes, it raises `Finding`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._file, self._reader = READERS[name]
        self._kept = TemporaryDirectory(prefix="fuzz-")
        self._folder = Path(self._kept.name)

    def __call__(self, content: bytes) -> None:
        """Read the bytes as a file."""
        (self._folder / self._file).write_bytes(content[:LARGEST])
        peak, started = _peak(), time.process_time()
        try:
            self._reader(self._folder)
        except LoadError as error:
            if not str(error).replace("\n", "").isprintable():
                raise Finding(f"{self.name}: control characters in {error!r}") from error
        except Exception as error:
            raise Finding(f"{self.name}: {type(error).__name__}: {error}") from error
        seconds, size = time.process_time() - started, _peak() - peak
        if seconds > SECONDS or size > BYTES:
            raise Finding(f"{self.name}: {seconds:.1f} s and {size:,} bytes of memory")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
