"""Carry out the plan: map, cast, place.

What each trick is worth is measured in docs/performance.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from tqdm import tqdm

from reference_loader.fill.copies import Copy, Crew
from reference_loader.fill.offload import Offloaded
from reference_loader.fill.ring import LANES, SLOT, Lane
from reference_loader.formats.reader import Opened, opened
from reference_loader.formats.safetensors import MappedFile
from reference_loader.model.skeleton import EXTRA_STATE, Skeleton, put, put_into
from reference_loader.plan.devices import DISK, memory_device
from reference_loader.plan.plan import LoadPlan, Placement

# Bytes of a file that are cast at a time: they are read and cast within a core's cache.
CHUNK = 2**21

Carry = Callable[[Copy], None]


def pump(plan: LoadPlan, skeleton: Skeleton, offloaded: Offloaded) -> None:
    """Fill every slot of the model that the plan has a stored tensor for.

    A tensor whose dtype is the checkpoint's own becomes a view of the mapped file, so nothing is
    copied; another is cast once, from its stored value (DTY-7). One file is open at a time. What
    belongs on disk is noted in `offloaded` and its parameter stays empty (OFF-1).
    """
    # disable=None: a bar on a terminal, nothing in a log.
    with tqdm(total=len(plan.placements), desc="Loading", leave=False, disable=None) as bar:
        for placements in _by_file(plan.placements):
            source = opened(placements[0].stored.file, plan.weights_only)
            with carriers() as carry:
                for placement in placements:
                    _place(placement, source, skeleton.modules, offloaded, carry)
            bar.update(len(placements))
    _move_buffers(plan, skeleton.model)


def _by_file(placements: Iterable[Placement]) -> list[list[Placement]]:
    files = defaultdict(list)
    for placement in placements:
        files[placement.stored.file].append(placement)
    return [sorted(group, key=lambda placement: placement.stored.start) for group in files.values()]


def _place(
    placement: Placement,
    source: Opened,
    modules: Mapping[str, nn.Module],
    offloaded: Offloaded,
    carry: Carry,
) -> None:
    """Give the slot its tensor, or the memory that `carry` will fill."""
    on_disk = placement.device == DISK
    if on_disk and offloaded.leave(placement):
        return
    # Only the values count: no gradient flag (FMT-15), no order of memory (FMT-14).
    stored = source.view(placement.stored).detach().contiguous()
    path, _, leaf = placement.target.rpartition(".")
    if on_disk:
        offloaded.write(placement.target, stored.to(placement.dtype))
    elif waits(placement):
        tensor = torch.empty(stored.shape, dtype=placement.dtype, device=placement.device)
        mapped = source if isinstance(source, MappedFile) else None
        carry(Copy(stored, tensor, mapped))
        put_into(modules[path], leaf, tensor)
    else:
        tensor = stored.to(device=placement.device, dtype=placement.dtype)
        put_into(modules[path], leaf, tensor)


def waits(placement: Placement) -> bool:
    """Whether it pays to leave the copy to the workers; extra state is used as it is put."""
    if placement.target.endswith(EXTRA_STATE):
        return False
    kind = placement.device.type
    large = placement.action == "cast" and placement.stored.nbytes > CHUNK
    return kind == "cuda" or (kind == "cpu" and large)


def _move_buffers(plan: LoadPlan, model: nn.Module) -> None:
    """The buffers that no file holds, to where their modules are."""
    if plan.device_map is None:
        return
    for name, buffer in list(model.named_buffers()):
        put(model, name, buffer.to(memory_device(name, plan.device_map)))


@contextmanager
def carriers() -> Iterator[Carry]:
    """What makes copies on all cores, each device's at a time of its own; at the end all are made.

    No thread is started before there is something to carry.
    """
    crews: dict[torch.device, Crew] = {}

    def carry(copy: Copy) -> None:
        device = copy.destination.device
        if device not in crews:
            crews[device] = stack.enter_context(_crew(device))
        crews[device].carry(copy)

    with ExitStack() as stack:
        yield carry


def _crew(device: torch.device) -> Crew:
    cores = torch.get_num_threads()
    if device.type == "cuda":
        return Crew(SLOT, [Lane(device) for _ in range(min(LANES, cores))])
    return Crew(CHUNK, [Lane(device, CHUNK, slots=1) for _ in range(cores)])
