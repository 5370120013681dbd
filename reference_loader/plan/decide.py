"""From what the checkpoint holds and what the model needs to a `LoadPlan`: pure functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reference_loader.errors import BadDtype, BadOptions, NothingMatches, ShapeMismatch
from reference_loader.formats.reader import header
from reference_loader.formats.stored import StoredTensor
from reference_loader.model.architecture import Architecture, Rename
from reference_loader.model.skeleton import EXTRA_STATE, Skeleton, Slot
from reference_loader.options import Options
from reference_loader.plan import devices, names
from reference_loader.plan.dtypes import ModelDtype, tensor_dtype
from reference_loader.plan.plan import LoadPlan, Mismatch, Placement
from reference_loader.source.checkpoint import Checkpoint


@dataclass(frozen=True)
class Inventory:
    """What a checkpoint holds, one tensor a key.

    `duplicates`, `unlisted` and `phantom` are as in `LoadPlan`.
    """

    stored: Mapping[str, StoredTensor]
    duplicates: Mapping[str, tuple[Path, ...]]
    unlisted: frozenset[str]
    phantom: frozenset[str]


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
        raise NothingMatches(f"{checkpoint.chosen} holds no tensors.", "Check who wrote it.")
    stored = {key: _listed_copy(found, listed.get(key)) for key, found in copies.items()}
    return Inventory(
        stored,
        {key: tuple(c.file for c in found) for key, found in copies.items() if len(found) > 1},
        frozenset(copies.keys() - listed.keys() if listed else ()),
        frozenset(
            key
            for key, shard in listed.items()
            if key not in copies or shard not in [c.file for c in copies[key]]
        ),
    )


def auto_order(inventory: Inventory) -> Iterator[StoredTensor]:
    """The order in which dtype="auto" looks at stored tensors (DTY-2): by file.

    Within a file as stored; of safetensors by key, as their library gives them. Sorted only when
    the first is asked for.
    """
    tensors = inventory.stored.values()
    order = {file: place for place, file in enumerate(sorted({t.file for t in tensors}))}

    def place(tensor: StoredTensor) -> tuple[int, str]:
        return order[tensor.file], tensor.key if tensor.file.suffix == ".safetensors" else ""

    yield from sorted(tensors, key=place)


def _listed_copy(copies: list[StoredTensor], shard: Path | None) -> StoredTensor:
    return next((copy for copy in copies if copy.file == shard), copies[-1])


@dataclass(frozen=True)
class Match:
    """Which stored tensor fills which slot, and what is left on either side."""

    placements: tuple[Placement, ...]
    mismatched: tuple[Mismatch, ...]
    unexpected: frozenset[str]
    superseded: frozenset[str]


def match(
    stored: Mapping[str, StoredTensor],
    skeleton: Skeleton,
    prefix: str,
    renames: Iterable[Rename],
    kept: Collection[str],
    *,
    device_map: devices.DeviceMap | None = None,
) -> Match:
    """Give every stored tensor its slot.

    Where two keys name one slot, the slot's own name wins, then the first by name: sharding
    decides nothing.

    Args:
        stored: checkpoint key to tensor.
        skeleton: the empty model.
        prefix, renames: see `names.resolve`.
        kept: modules kept in float32, see `tensor_dtype`.
        device_map: see `devices.place`.

    Raises:
        NothingMatches: not one key has a slot (MAP-7).
        BadDtype: a complex tensor for a real slot (FMT-10).
    """
    targets = names.resolve(stored, skeleton.slots, prefix, renames)
    winners: dict[str, StoredTensor] = {}
    for key, target in sorted(targets.items()):
        if target in skeleton.slots and (target not in winners or key == target):
            winners[target] = stored[key]
    if stored and not winners and skeleton.slots:
        raise _nothing_matches(stored, skeleton)
    _refuse_complex(winners, skeleton.slots)
    placements, mismatched = [], []
    for target, tensor in winners.items():
        slot = skeleton.slots[target]
        device = _device(slot, device_map)
        if slot.kind == EXTRA_STATE:
            placements.append(Placement(target, tensor, tensor.dtype, device))
        elif tensor.shape == slot.shape:
            dtype = tensor_dtype(target, slot.dtype, kept)
            placements.append(Placement(target, tensor, dtype, device))
        else:
            mismatched.append(Mismatch(target, tensor.shape, slot.shape, tensor.file))
    unexpected = frozenset(t for t in targets.values() if t not in skeleton.slots)
    losers = stored.keys() - {tensor.key for tensor in winners.values()}
    superseded = frozenset(key for key in losers if targets[key] in skeleton.slots)
    return Match(tuple(placements), tuple(mismatched), unexpected, superseded)


def _refuse_complex(winners: Mapping[str, StoredTensor], slots: Mapping[str, Slot]) -> None:
    """Raise where a cast would lose the imaginary parts."""
    for target, tensor in winners.items():
        if tensor.dtype.is_complex and not slots[target].dtype.is_complex:
            raise BadDtype(
                f"{tensor.file} stores {tensor.key!r} as {tensor.dtype}, the model's "
                f"{target!r} is {slots[target].dtype}.",
                "Store its real part.",
            )


def _device(slot: Slot, device_map: devices.DeviceMap | None) -> Any:
    """Buffers are small and never on disk."""
    where = devices.place if slot.kind == "parameter" else devices.memory_device
    return where(slot.name, device_map)


def decide_places(
    options: Options, architecture: Architecture, skeleton: Skeleton
) -> devices.DeviceMap | None:
    """The device map, inferred from budgets where that is asked for (PLC-1, PLC-5).

    Raises:
        BadOptions, MetaDevice: see `devices.requested`, `devices.check`, `devices.check_disk`.
    """
    default = torch.empty(0).device
    places = devices.requested(options.device_map, default)
    if isinstance(places, str):
        places = architecture.infer_device_map(skeleton.model, places, options.max_memory)
    if places is not None:
        parameters = skeleton.model.named_parameters(remove_duplicate=False)
        parameter_names = [name for name, _ in parameters]
        devices.check(places, parameter_names)
        devices.check_disk(places, parameter_names, skeleton.ties)
    return places


def refuse_mismatches(mismatched: Collection[Mismatch]) -> None:
    """Raise, naming every parameter and both its shapes.

    Raises:
        ShapeMismatch: `mismatched` is not empty (MIS-4).
    """
    if mismatched:
        lines = [
            f"{m.name}: {list(m.stored)} in {m.file}, {list(m.model)} in the model"
            for m in mismatched
        ]
        raise ShapeMismatch(
            f"size mismatch for {'; '.join(lines)}.",
            "Check the config; `ignore_mismatched_sizes=True` initialises these anew.",
        )


def refuse_over_budget(plan: LoadPlan, options: Options) -> None:
    """Raise where a map of the caller's puts more on a device than its budget (PLC-10).

    What is stored is counted. A map that is made of the budgets keeps them by itself.

    Raises:
        BadOptions: naming the device and both sizes.
    """
    if plan.device_map is None or str(options.device_map) in devices.INFERRED:
        return
    for name, budget in devices.budgets(options.max_memory).items():
        held = sum(p.nbytes for p in plan.placements if devices.numbered(p.device) == name)
        if held > budget:
            raise BadOptions(
                f"device_map puts {held:,} bytes on {name}; max_memory allows {budget:,}.",
                'Pass `device_map="auto"`, which keeps to max_memory, or a smaller `dtype`.',
            )


@dataclass(frozen=True)
class Ties:
    """What the ties come to.

    Attributes:
        groups: each group with the name that provides the parameter first.
        rivals: a name that is stored too, to the provider of its group.
        provided: names that need nothing, since another of their group provides.
    """

    groups: tuple[tuple[str, ...], ...]
    rivals: Mapping[str, str]
    provided: frozenset[str]


def decide_ties(groups: Iterable[tuple[str, ...]], filled: Collection[str]) -> Ties:
    """Which name of each group provides the parameter: the first that is stored (TIE-2).

    Args:
        groups: names that are one parameter.
        filled: names that a stored tensor fills.
    """
    ordered: list[tuple[str, ...]] = []
    rivals: dict[str, str] = {}
    provided: set[str] = set()
    for group in groups:
        stored = [name for name in group if name in filled]
        first = stored[0] if stored else group[0]
        ordered.append((first, *(name for name in group if name != first)))
        rivals.update(dict.fromkeys(stored[1:], first))
        if stored:
            provided.update(group)
    return Ties(tuple(ordered), rivals, frozenset(provided))


def decide_fresh(
    slots: Mapping[str, Slot], lacking: Collection[str], ties: Ties, kept: Collection[str]
) -> dict[str, torch.dtype]:
    """The parameters to initialise and their dtypes: one for each tie, none that a tie provides."""
    provided = {name for group in ties.groups for name in group[1:]} | ties.provided
    return {
        name: tensor_dtype(name, slots[name].dtype, kept)
        for name in slots
        if name in lacking and slots[name].kind == "parameter" and name not in provided
    }


def make_plan(
    *,
    options: Options,
    architecture: Architecture,
    checkpoint: Checkpoint,
    inventory: Inventory,
    dtype: ModelDtype,
    skeleton: Skeleton,
) -> LoadPlan:
    """Every decision, from what the earlier steps found.

    Raises:
        NothingMatches: see `match`.
        BadOptions, MetaDevice: see `decide_places`.
    """
    model = skeleton.model
    kept = architecture.kept_in_float32(model, dtype.dtype)
    renames = [
        *names.mapping_renames(options.key_mapping),
        *names.mapping_renames(architecture.key_mapping(model)),
        *architecture.renames(model),
    ]
    device_map = decide_places(options, architecture, skeleton)
    prefix = architecture.base_prefix
    matched = match(inventory.stored, skeleton, prefix, renames, kept, device_map=device_map)
    filled = {placement.target for placement in matched.placements}
    ties = decide_ties(skeleton.ties, filled)
    lacking = skeleton.slots.keys() - filled
    missing = lacking - {m.name for m in matched.mismatched} - ties.provided
    unexpected = matched.unexpected
    ignored = unexpected and names.ignored(unexpected, architecture.ignored_unexpected(model))
    return LoadPlan(
        model_class=architecture.model_class,
        source=checkpoint.folder,
        files=checkpoint.files,
        why_files=checkpoint.why,
        dtype=dtype.dtype,
        why_dtype=dtype.why,
        device_map=device_map,
        placements=matched.placements,
        missing=frozenset(missing - names.ignored(missing, architecture.ignored_missing(model))),
        fresh=decide_fresh(skeleton.slots, lacking, ties, kept),
        unexpected=unexpected - ignored,
        ignored=frozenset(ignored),
        mismatched=matched.mismatched,
        ties=ties.groups,
        rivals=ties.rivals,
        duplicates=inventory.duplicates,
        superseded=matched.superseded,
        unlisted=inventory.unlisted,
        phantom=inventory.phantom,
        weights_only=options.weights_only,
        shapes={name: skeleton.slots[name].shape for name in lacking},
    )


def _nothing_matches(stored: Mapping[str, StoredTensor], skeleton: Skeleton) -> NothingMatches:
    key, tensor = next(iter(stored.items()))
    return NothingMatches(
        f"Not one of the {len(stored)} stored keys belongs to the model: {tensor.file} holds "
        f"{key!r}, {type(skeleton.model).__name__} needs {next(iter(skeleton.slots))!r}.",
        "Check the model class, or rename with `key_mapping`.",
    )
