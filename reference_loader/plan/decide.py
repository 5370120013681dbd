"""From what the checkpoint holds and what the model needs to a `LoadPlan`: pure functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch

from reference_loader.errors import (
    BadDtype,
    BadOptions,
    NothingMatches,
    ShapeMismatch,
    UnsupportedOption,
)
from reference_loader.formats.stored import Format, StoredTensor
from reference_loader.model.architecture import Architecture, Converter, Rename
from reference_loader.model.sharing import Sharing
from reference_loader.model.skeleton import EXTRA_STATE, Skeleton, Slot
from reference_loader.options import Options
from reference_loader.plan import devices, names
from reference_loader.plan.conversions import conversions
from reference_loader.plan.decisions import (
    Action,
    Conversion,
    Fresh,
    Inventory,
    Match,
    Mismatch,
    Placement,
    Ties,
)
from reference_loader.plan.dtypes import ModelDtype, tensor_dtype
from reference_loader.plan.plan import LoadPlan
from reference_loader.plan.quantised import refuse_quantised
from reference_loader.plan.workers import waits, workers_for
from reference_loader.source.checkpoint import Checkpoint
from reference_loader.speed import fast


def match(
    stored: Mapping[str, StoredTensor],
    skeleton: Skeleton,
    prefix: str,
    renames: Iterable[Rename],
    kept: Collection[str],
    *,
    converters: Sequence[Converter] = (),
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
        converters: see `names.resolve`.
        device_map: see `devices.place`.

    Raises:
        NothingMatches: not one key has a slot (MAP-7).
        BadConversion: see `conversions`.
        BadDtype: a complex tensor for a real slot (FMT-10).
    """
    targets, claimed = names.resolve(stored, skeleton.slots, prefix, renames, converters)
    used = {key: each for key, each in claimed.items() if each.target in skeleton.slots}
    winners: dict[str, StoredTensor] = {}
    for key, target in sorted(targets.items()):
        if target in skeleton.slots and (target not in winners or key == target):
            winners[target] = stored[key]
    if stored and not winners and not used and skeleton.slots:
        raise _nothing_matches(stored, skeleton, prefix)
    _refuse_complex(winners, skeleton)

    threads = fast()
    placements, mismatched = [], []
    for target, tensor in winners.items():
        slot = skeleton.slots[target]
        any_shape = slot.kind == EXTRA_STATE  # used as it is put, so no thread may fill it later
        if tensor.shape != slot.shape and not any_shape:
            mismatched.append(Mismatch(target, tensor.shape, slot.shape, tensor.file))
            continue
        dtype = tensor.dtype if any_shape else tensor_dtype(target, slot.dtype, kept)
        # Buffers are small, and are never offloaded to disk.
        where = devices.place if slot.kind == "parameter" else devices.memory_device
        device = where(target, device_map)
        action = decide_action(tensor, dtype, device)
        if target in skeleton.sharing.memory:
            action = Action.FILL
        waiting = threads and not any_shape and waits(action, tensor.nbytes, device)
        placements.append(Placement(target, tensor, dtype, device, action, waiting))

    # A checkpoint that has a tensor as the model has it needs nothing else for it.
    needed = {key: each for key, each in used.items() if each.target not in winners}
    made = [*conversions(needed, stored, skeleton, kept, device_map)]
    mismatched += [each for each in made if isinstance(each, Mismatch)]
    converted = tuple(each for each in made if isinstance(each, Conversion))

    unexpected = {target for target in targets.values() if target not in skeleton.slots}
    for key in claimed.keys() - used.keys():
        unexpected.update(claimed[key].converter.makes(claimed[key].target))
    losers = stored.keys() - {tensor.key for tensor in winners.values()} - claimed.keys()
    superseded = {key for key in losers if targets[key] in skeleton.slots}
    superseded |= used.keys() - needed.keys()
    return Match(
        *(tuple(placements), converted, tuple(mismatched)),
        *(frozenset(unexpected), frozenset(superseded)),
    )


def _nothing_matches(
    stored: Mapping[str, StoredTensor], skeleton: Skeleton, prefix: str
) -> NothingMatches:
    """The error for keys of which none has a slot (MAP-7)."""
    key, first = next(iter(stored.items()))
    wrapped = names.common_prefix(stored, skeleton.slots, prefix)
    return NothingMatches(
        f"None of the {len(stored)} stored keys belongs to the model: {first.file} holds "
        f"{key!r}, {type(skeleton.model).__name__} needs {next(iter(skeleton.slots))!r}.",
        f"Every key begins with {wrapped!r}: pass `key_mapping={{'^{wrapped}': ''}}`."
        if wrapped
        else "Check the model class, or rename the keys with `key_mapping`.",
    )


def _refuse_complex(winners: Mapping[str, StoredTensor], skeleton: Skeleton) -> None:
    """Raise BadDtype for a complex tensor that would fill a real slot (FMT-10)."""
    for target, tensor in winners.items():
        if tensor.dtype.is_complex and not skeleton.slots[target].dtype.is_complex:
            raise BadDtype(
                f"{tensor.file} stores {tensor.key!r} as {tensor.dtype}, but the model's "
                f"{target!r} is {skeleton.slots[target].dtype}.",
                "Save the real part of the tensor instead.",
            )


def decide_action(stored: StoredTensor, dtype: torch.dtype, device: Any) -> Action:
    """What is done with a stored tensor.

    Args:
        stored: the tensor.
        dtype: in the model.
        device: a `torch.device`, or `devices.DISK`.
    """
    if device == devices.DISK:
        # accelerate reads safetensors where they are, and casts what it read.
        return Action.OFFLOAD if stored.format is Format.SAFETENSORS else Action.WRITE
    if dtype != stored.dtype:
        return Action.CAST
    return Action.VIEW if device.type == "cpu" and stored.viewable else Action.COPY


def decide_places(
    options: Options, architecture: Architecture, skeleton: Skeleton
) -> devices.DeviceMap | None:
    """The device map, inferred from budgets where that is asked for (PLC-1, PLC-5).

    Raises:
        BadOptions, MetaDevice: see `devices.requested` and each `check` of `devices`.
    """
    default = torch.empty(0).device
    places = devices.requested(options.device_map, default)
    if isinstance(places, str):
        devices.budgets(options.max_memory)  # raises for what is no budget
        places = architecture.infer_device_map(skeleton.model, places, options.max_memory)
    if places is not None:
        parameters = skeleton.model.named_parameters(remove_duplicate=False)
        parameter_names = [name for name, _ in parameters]
        devices.check(places, parameter_names)
        devices.check_sharing(places, skeleton.sharing)
        devices.check_disk(places, parameter_names, skeleton.ties)
        devices.check_fetch(places, skeleton.modules)
    return places


def refuse_other_dtype(sharing: Sharing, kept: Collection[str]) -> None:
    """Raise for a parameter that would be kept in float32 where others share its memory.

    Raises:
        UnsupportedOption: naming the parameter.
    """
    for name in sorted(sharing.memory):
        if tensor_dtype(name, torch.float16, kept) == torch.float32:
            raise UnsupportedOption(
                f"{name!r} stays in float32, and shares memory with another tensor of the model.",
                "Load the model in float32.",
            )


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
            "Check the config, or initialise these with `ignore_mismatched_sizes=True`.",
        )


def refuse_over_budget(plan: LoadPlan, options: Options) -> None:
    """Raise where the caller's device map puts more on a device than its budget (PLC-10).

    Stored tensors are counted. A device map that is inferred from the budgets respects them.

    Raises:
        BadOptions: naming the device and both sizes.
    """
    if plan.device_map is None or str(options.device_map) in devices.INFERRED:
        return
    for name, budget in devices.budgets(options.max_memory).items():
        held = sum(each.nbytes for each in plan.filled if devices.numbered(each.device) == name)
        if held > budget:
            raise BadOptions(
                f"device_map puts {held:,} bytes on {name}; max_memory allows {budget:,}.",
                'Pass `device_map="auto"`, which respects max_memory, or a smaller `dtype`.',
            )


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
    slots: Mapping[str, Slot],
    lacking: Collection[str],
    ties: Ties,
    kept: Collection[str],
    device_map: devices.DeviceMap | None = None,
) -> dict[str, Fresh]:
    """The parameters to initialise: one for each tie, none that a tie provides.

    Args:
        slots: of the empty model.
        lacking: names of slots that no stored tensor fills.
        ties: see `decide_ties`.
        kept: modules kept in float32, see `tensor_dtype`.
        device_map: see `devices.place`.
    """
    provided = {name for group in ties.groups for name in group[1:]} | ties.provided
    return {
        name: Fresh(
            tensor_dtype(name, slot.dtype, kept), slot.shape, devices.place(name, device_map)
        )
        for name, slot in slots.items()
        if name in lacking and slot.kind == "parameter" and name not in provided
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
        BadConfig: see `refuse_quantised`.
        BadOptions, MetaDevice: see `decide_places`.
    """
    model = skeleton.model
    kept = architecture.kept_in_float32(model, dtype.dtype)
    refuse_other_dtype(skeleton.sharing, kept)
    renames = [
        *names.mapping_renames(options.key_mapping),
        *names.mapping_renames(architecture.key_mapping(model)),
        *architecture.renames(model),
    ]
    device_map = decide_places(options, architecture, skeleton)
    prefix = architecture.base_prefix
    converters = architecture.converters(model)
    matched = match(
        *(inventory.stored, skeleton, prefix, renames, kept),
        converters=converters,
        device_map=device_map,
    )
    filled = {each.target for each in matched.filled}
    ties = decide_ties(skeleton.ties, filled)
    lacking = skeleton.slots.keys() - filled
    refuse_quantised(
        *(matched, lacking - ties.provided),
        lambda key: names.in_the_model(key, skeleton.slots, prefix, renames, converters),
    )
    # What is tied to a stored tensor of another shape is not missing either (INF-2).
    differing = {mismatch.name for mismatch in matched.mismatched}
    tied = {name for group in ties.groups if differing.intersection(group) for name in group}
    missing = lacking - differing - tied - ties.provided
    left_over = matched.unexpected
    ignored = left_over and names.ignored(left_over, architecture.ignored_unexpected(model))
    buffers = (name for name, _ in model.named_buffers(remove_duplicate=False))
    return LoadPlan(
        model_class=architecture.model_class,
        checkpoint=checkpoint,
        model_dtype=dtype,
        device_map=device_map,
        inventory=inventory,
        match=matched,
        ties=ties,
        fresh=decide_fresh(skeleton.slots, lacking, ties, kept, device_map),
        buffers={
            name: devices.memory_device(name, device_map) for name in buffers if name not in filled
        },
        missing=frozenset(missing - names.ignored(missing, architecture.ignored_missing(model))),
        ignored=frozenset(ignored),
        workers=workers_for(matched.filled),
        hooks=devices.needs_hooks(device_map),
        weights_only=options.weights_only,
        sharing=skeleton.sharing,
    )
