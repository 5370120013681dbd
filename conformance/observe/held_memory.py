"""What a load holds, and what it shares with the files of its checkpoint: pairs of facts (MEM)."""

from __future__ import annotations

import gc
import hashlib
import weakref
from pathlib import Path

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from conformance.observe.experiment import Pairs, Usage, facts_of, paired, tensors_of
from conformance.observe.facts import model_of, observe_tensors
from conformance.world.mapped_files import mapped


def gone(usage: Usage) -> Pairs:
    """Nothing is left of a model that nobody has a reference to: object, storages, mappings."""
    before = len(mapped(usage.source))
    result = usage.again(usage.source)
    model = model_of(result)
    object_of = weakref.ref(model)
    storages = {
        name: StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
        for name, tensor in tensors_of(model).items()
        if not tensor.is_meta
    }
    del result, model
    gc.collect()
    pairs: Pairs = {}
    for name, storage in storages.items():
        expired: bool = storage.expired()  # type: ignore[no-untyped-call]
        pairs[name] = ("released", _told(expired))
    pairs["(model)"] = ("released", _told(object_of() is None))
    pairs["(mapped files)"] = (before, len(mapped(usage.source)))
    return pairs


def _told(released: bool) -> str:
    """A fact in a word."""
    return "released" if released else "held"


def files_unwritten(usage: Usage) -> Pairs:
    """Writing to every tensor of the model changes no file of the checkpoint."""
    before = _bytes_of(usage.source)
    model = usage.model()
    with torch.no_grad():
        for tensor in tensors_of(model).values():
            if not tensor.is_meta:
                tensor.zero_()
    return paired(before, _bytes_of(usage.source))


def files_replaced(usage: Usage) -> Pairs:
    """The model stays as it is when its files are replaced by others of the same names."""
    model = usage.model()
    before = facts_of(observe_tensors(model))
    for path in usage.source.iterdir():
        other = path.with_name("other")
        other.write_bytes(b"\xff" * path.stat().st_size)
        other.replace(path)
    return paired(before, facts_of(observe_tensors(model)))


def files_truncated(usage: Usage) -> Pairs:
    """The model stays as it is when its files are cut to nothing.

    A view of a file that is cut ends the process, so the files are cut only if none is mapped.
    """
    model = usage.model()
    before = facts_of(observe_tensors(model))
    if spans := mapped(usage.source):
        return {"(mapped files)": (0, len(spans))}
    for path in usage.source.iterdir():
        path.write_bytes(b"")
    return paired(before, facts_of(observe_tensors(model)))


def _bytes_of(folder: Path) -> dict[str, str]:
    """Name to a digest of the content of every file of a checkpoint."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}
