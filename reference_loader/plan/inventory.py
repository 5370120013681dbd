"""What a checkpoint holds, by its headers: which tensors, where, and how large a model may be."""

from __future__ import annotations

from collections.abc import Iterator

from reference_loader.errors import NothingMatches
from reference_loader.formats.reader import header
from reference_loader.formats.stored import Format, StoredTensor
from reference_loader.model.values import NO_BOUNDS, Bounds
from reference_loader.options import Options
from reference_loader.plan.decisions import Inventory
from reference_loader.source.checkpoint import Checkpoint


def take_inventory(checkpoint: Checkpoint, options: Options | None = None) -> Inventory:
    """Read every header; where a key is stored twice, the index decides (IDX-2).

    Raises:
        BadTensorFile, UnsafePickle: see `formats.header`.
        NothingMatches: the files hold no tensor (FMT-16); a state dict may be empty.
    """
    listed = checkpoint.index.shard_of if checkpoint.index else {}
    copies: dict[str, list[StoredTensor]] = {}
    for file in checkpoint.files:
        for key, tensor in header(file, options or Options()).items():
            copies.setdefault(key, []).append(tensor)
    if not copies and checkpoint.folder is not None:
        raise NothingMatches(f"{checkpoint.chosen} holds no tensors.", "Check how it was saved.")
    return Inventory(
        {
            key: next((copy for copy in found if copy.file == listed.get(key)), found[-1])
            for key, found in copies.items()
        },
        {key: tuple(c.file for c in found) for key, found in copies.items() if len(found) > 1},
        frozenset(copies.keys() - listed.keys() if listed else ()),
        frozenset(
            key
            for key, shard in listed.items()
            if key not in copies or shard not in [c.file for c in copies[key]]
        ),
    )


def bounds(inventory: Inventory) -> Bounds:
    """What a model of this checkpoint may have at most; with no tensor all of it is initialised."""
    if not inventory.stored:
        return NO_BOUNDS
    nbytes = sum(tensor.nbytes for tensor in inventory.stored.values())
    return Bounds(5_000 + 20 * len(inventory.stored), max(2**28, 8 * nbytes))


def auto_order(inventory: Inventory) -> Iterator[StoredTensor]:
    """The order in which dtype="auto" looks at stored tensors (DTY-2): by file.

    Within a file as stored; of safetensors by key, as their library gives them. Sorted only when
    the first is asked for.
    """
    tensors = inventory.stored.values()
    order = {file: place for place, file in enumerate(sorted({t.file for t in tensors}))}

    def place(tensor: StoredTensor) -> tuple[int, str]:
        return order[tensor.file], tensor.key if tensor.format is Format.SAFETENSORS else ""

    yield from sorted(tensors, key=place)
