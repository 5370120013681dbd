"""Who loads: stock as it comes and at its best, the reference, and the peers that are installed.

Each prepares, which is its imports, and returns what loads; both are on the clock.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Task:
    """What is loaded: as in `workloads.Case`, with the checkpoint's folder."""

    folder: str
    dtype: str
    model: str
    device: str
    converts: bool = False

    def model_class(self) -> Any:
        """The class to load in a benchmark; importing it is part of the task."""
        module, _, name = self.model.partition(":")
        return getattr(importlib.import_module(module), name)

    def files(self) -> list[str]:
        """Paths of the weights that the contenders load."""
        return sorted(map(str, Path(self.folder).glob("*.safetensors")))

    def placed(self) -> dict[str, Any]:
        """The options by which a contender's `from_pretrained` gets dtype and device."""
        return {"dtype": self.dtype} | ({} if self.device == "cpu" else {"device_map": self.device})


Load = Callable[[], Any]


@dataclass(frozen=True)
class Contender:
    """A way to load a checkpoint.

    Attributes:
        name: in tables, and what `--contender` names.
        prepare: imports, and returns what loads.
        environment: variables of its process.
        needs: the package that must be installed, or `PACKAGE:ATTRIBUTE.OF.IT` that it must have.
        device: the kind of device it loads to, where that is one only.
        model: the class it loads, where that is its own; then only checkpoints of that class.
        converts: whether it merges stored tensors as the release does.
    """

    name: str
    prepare: Callable[[Task], Load]
    environment: Mapping[str, str] = field(default_factory=dict)
    needs: str = ""
    device: str = ""
    model: str = ""
    converts: bool = False

    def lacks(self, task: Task) -> str:
        """Why a benchmark's task is none for this contender; empty if it is one."""
        package, _, attribute = self.needs.partition(":")
        if package and importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
        if attribute and not _has(package, attribute):
            return f"the {package} that is installed has no {attribute}"
        if self.device and not task.device.startswith(self.device):
            return f"loads to {self.device} only"
        if self.model and task.model.rpartition(":")[2] != "LlamaForCausalLM":
            return "loads Llama only"
        if task.converts and not self.converts:
            return "merges no stored tensors"
        return ""


def _has(package: str, attribute: str) -> bool:
    """Whether a contender's package is installed in a version that has the attribute."""
    try:
        attrgetter(attribute)(importlib.import_module(package))
    except AttributeError:
        return False
    return True


def _stock(task: Task, **more: Any) -> Load:
    """Stock as a contender."""
    model_class = task.model_class()
    return lambda: model_class.from_pretrained(task.folder, **task.placed(), **more)


def _stock_without_mmap(task: Task) -> Load:
    """Stock as a contender, with `disable_mmap`."""
    return _stock(task, disable_mmap=True)


def _reference(task: Task) -> Load:
    """The reference loader as a contender."""

    from reference_loader import from_pretrained

    model_class = task.model_class()
    return lambda: from_pretrained(task.folder, model_class=model_class, **task.placed())


def _reference_llama(task: Task) -> Load:
    """The reference loader as a contender, with its own Llama class."""

    from reference_loader import from_pretrained
    from reference_loader.llama import Llama

    return lambda: from_pretrained(task.folder, model_class=Llama, **task.placed())


def _empty(model_class: Any, task: Task) -> Any:
    """A contender's model without memory, in the dtype asked for, for accelerate and DCP."""
    import torch
    from accelerate import init_empty_weights

    config = model_class.config_class.from_pretrained(task.folder)
    dtype = config.dtype if task.dtype == "auto" else getattr(torch, task.dtype)
    with init_empty_weights():
        return model_class._from_config(config, dtype=dtype).eval()


def _accelerate(task: Task) -> Load:
    """Accelerate's `load_checkpoint_in_model` as a contender."""

    from accelerate.utils import load_checkpoint_in_model

    model_class = task.model_class()

    def load() -> Any:
        model = _empty(model_class, task)
        load_checkpoint_in_model(model, task.folder, device_map={"": task.device})
        return model

    return load


def _distributed(task: Task) -> Load:
    """Torch's distributed checkpoint (DCP) as a contender, in one process; no buffers are set."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load as load_state

    model_class = task.model_class()

    def load() -> Any:
        model = _empty(model_class, task).to_empty(device=task.device)
        reader = HuggingFaceStorageReader(task.folder, thread_count=os.cpu_count() or 1)
        load_state(model.state_dict(), storage_reader=reader, no_dist=True)
        return model

    return load


def _assigned(model: Any, tensors: Iterator[tuple[str, Any]]) -> Any:
    """A contender's model with the tensors as its parameters, each in the parameter's dtype."""
    wanted = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    state = {name: tensor.to(wanted[name]) for name, tensor in tensors}
    model.load_state_dict(state, assign=True)
    return model


def _fastsafetensors(task: Task) -> Load:
    """The package fastsafetensors as a contender."""

    from fastsafetensors import fastsafe_open

    model_class = task.model_class()
    files = task.files()

    def load() -> Any:
        with fastsafe_open(filenames=files, nogds=True, device=task.device) as opened:
            # Its buffers end with the block.
            tensors = ((name, opened.get_tensor(name).clone()) for name in opened.keys())  # noqa: SIM118
            return _assigned(_empty(model_class, task), tensors)

    return load


def _streamer(task: Task) -> Load:
    """Run:ai's model streamer as a contender."""

    from runai_model_streamer import SafetensorsStreamer

    model_class = task.model_class()
    files = task.files()

    def load() -> Any:
        with SafetensorsStreamer() as streamer:
            streamer.stream_files(files)
            # It reuses its buffer.
            tensors = ((n, t.clone().to(task.device)) for n, t in streamer.get_tensors())
            return _assigned(_empty(model_class, task), tensors)

    return load


def _instant(task: Task) -> Load:
    """InstantTensor as a contender: all files at once, each tensor with memory of its own."""
    from instanttensor import safe_open

    model_class = task.model_class()
    files = task.files()

    def load() -> Any:
        with safe_open(files, framework="pt", device=task.device) as opened:
            return _assigned(_empty(model_class, task), opened.tensors())

    return load


def _prefetched(task: Task) -> Load:
    """The engine of safetensors 0.9 as a contender: told first which tensors will be asked for."""
    from safetensors import safe_open

    model_class = task.model_class()
    files = task.files()

    def tensors() -> Iterator[tuple[str, Any]]:
        for file in files:
            with safe_open(file, framework="pt", device=task.device, backend="pread") as opened:
                opened.prefetch()
                yield from ((name, opened.get_tensor(name)) for name in opened.keys())  # noqa: SIM118

    return lambda: _assigned(_empty(model_class, task), tensors())


STOCK = "stock"

CONTENDERS = (
    Contender(STOCK, _stock, converts=True),
    Contender("stock, no threads", _stock, {"HF_DEACTIVATE_ASYNC_LOAD": "1"}, converts=True),
    Contender("stock, no mmap", _stock_without_mmap, converts=True),
    Contender("reference", _reference, converts=True),
    Contender("reference, own Llama", _reference_llama, model="reference_loader.llama:Llama"),
    Contender("accelerate", _accelerate, needs="accelerate"),
    Contender("torch DCP", _distributed),
    Contender("fastsafetensors", _fastsafetensors, needs="fastsafetensors"),
    Contender("Run:ai streamer", _streamer, needs="runai_model_streamer"),
    Contender("InstantTensor", _instant, needs="instanttensor", device="cuda"),
    Contender("safetensors prefetch", _prefetched, needs="safetensors:safe_open.prefetch"),
)


def by_name(name: str) -> Contender:
    """The contender (stock, reference, accelerate, …) of that name."""
    return next(each for each in CONTENDERS if each.name == name)
