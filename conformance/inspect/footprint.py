"""What a plan needs: tensors and bytes by device and dtype, peaks of memory, and whether it fits.

Pure functions of a `LoadPlan`; no weight is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from conformance.inspect.headers import headers_of
from conformance.world import memory
from reference_loader import plan
from reference_loader.errors import LoadError
from reference_loader.formats.stored import Format
from reference_loader.model.choose import choose
from reference_loader.options import Options
from reference_loader.plan.decisions import Action, Conversion
from reference_loader.plan.plan import LoadPlan
from reference_loader.source.checkpoint import may_be_id, open_folder

CPU, DISK = "cpu", "disk"
NARROW = torch.bfloat16  # what a model that does not fit is asked for first


class BadBudget(ValueError):
    """`--max-memory` is not `DEVICE=SIZE,…`."""


@dataclass
class Part:
    """Tensors of one device, dtype as stored, dtype in the model, and action.

    Attributes:
        device: "cpu", "cuda:0", "disk".
        stored, dtype: names of dtypes; `stored` is empty for what no file holds.
        action: see `reference_loader.plan.decisions.Action`, or "converted", or "initialised".
        tensors, parameters: how many; parameters are elements.
        on_disk, in_memory: bytes.
    """

    device: str
    stored: str
    dtype: str
    action: str
    tensors: int = 0
    parameters: int = 0
    on_disk: int = 0
    in_memory: int = 0


@dataclass(frozen=True)
class Peaks:
    """Bytes at the peak of the load, above what the process holds before it.

    Attributes:
        anonymous: of the host, the process's own.
        file: of the host, pages of mapped files, once each is touched; the kernel may drop them.
        devices: of each device, the context of its driver aside.
        model: of the host, the model without its weights, and the plan: what making them for this
            explanation took. Where the system does not tell it, 0.
    """

    anonymous: int
    file: int
    devices: Mapping[str, int]
    model: int

    @property
    def host(self) -> int:
        """Bytes of all kinds of host memory at the peak of a planned load."""
        return self.anonymous + self.file + self.model


@dataclass(frozen=True)
class Fit:
    """Whether what a device must hold fits its budget; bytes."""

    device: str
    needs: int
    budget: int

    @property
    def fits(self) -> bool:
        """Whether the device's budget holds the peak of a planned load."""
        return self.needs <= self.budget


@dataclass(frozen=True)
class Explanation:
    """All of it; `advice` says what would fit, where something does not."""

    parts: tuple[Part, ...]
    peaks: Peaks
    fits: tuple[Fit, ...]
    advice: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The footprint of a plan, JSON-ready."""
        fits = [{**asdict(fit), "fits": fit.fits} for fit in self.fits]
        return {
            "parts": [asdict(part) for part in self.parts],
            "peak": {**asdict(self.peaks), "host": self.peaks.host},
            "fits": fits,
            "advice": list(self.advice),
        }


def planned(source: str, **options: Any) -> tuple[LoadPlan, int]:
    """The plan of a load; of a repository from its headers alone, where they are enough.

    Returns:
        The plan, and the bytes that making it and the empty model took.

    Raises:
        LoadError: see `reference_loader.plan`.
    """
    # Trusted code is in files that the headers leave out.
    if may_be_id(source) and not options.get("trust_remote_code"):
        with headers_of(source, Options.of(options)) as folder:
            if folder is not None:
                return _planned_by_options(folder, {**options, "subfolder": ""})
    return _planned_by_options(source, options)


def _planned_by_options(source: str | Path, options: Mapping[str, Any]) -> tuple[LoadPlan, int]:
    """The plan of a load whose footprint is asked for, and the bytes that planning took."""
    wanted = Options.of(options)
    with suppress(LoadError):  # the plan will say it
        # The import of a class is no part of the load.
        choose(str(source), open_folder(source, wanted.subfolder, wanted), (), wanted)
    measured = memory.peaks(sampled=False) if memory.is_told() else nullcontext(memory.Peaks())
    with measured as taken:
        decided: LoadPlan = plan(source, **options)
    return decided, taken.total


def explain(
    decided: LoadPlan, budgets: Mapping[str, int] | None = None, *, taken: int = 0
) -> Explanation:
    """The footprint of a plan, beside the budgets: device, as "cuda:0" or "cpu", to bytes.

    Args:
        decided, taken: see `planned`.
        budgets: what each device may hold.
    """
    parts = tuple(parts_of(decided))
    peaks = peaks_of(decided, parts, taken)
    fits = tuple(_fits(peaks, budgets or {}))
    return Explanation(parts, peaks, fits, tuple(_advice(decided, parts, fits)))


def parts_of(decided: LoadPlan) -> list[Part]:
    """A plan's footprint: its tensors in groups by where they come from, the largest first."""
    found: dict[tuple[str, ...], Part] = {}

    def part(device: str, stored: str, dtype: str, action: str) -> Part:
        return found.setdefault(
            (device, stored, dtype, action), Part(device, stored, dtype, action)
        )

    for placement in decided.placements:
        stored, where = placement.stored, str(placement.device)
        each = part(
            where, _dtype_name(stored.dtype), _dtype_name(placement.dtype), str(placement.action)
        )
        each.tensors += 1
        each.parameters += stored.nbytes // stored.dtype.itemsize
        each.on_disk += stored.nbytes
        each.in_memory += 0 if where == DISK else placement.nbytes
    for made in decided.conversions:
        first, where = made.sources[0].dtype, str(made.device)
        each = part(where, _dtype_name(first), _dtype_name(made.dtype), "converted")
        each.tensors += 1
        each.parameters += math.prod(made.shape)
        # A source that is split is counted with each tensor that is made of it, by its part.
        each.on_disk += math.prod(made.shape) * first.itemsize
        each.in_memory += 0 if where == DISK else made.nbytes
    for fresh in decided.fresh.values():
        where = str(fresh.device)
        each = part(where, "", _dtype_name(fresh.dtype), "initialised")
        each.tensors += 1
        each.parameters += math.prod(fresh.shape)
        each.in_memory += 0 if where == DISK else fresh.nbytes
    return sorted(found.values(), key=lambda each: -each.parameters)


def peaks_of(decided: LoadPlan, parts: tuple[Part, ...], taken: int) -> Peaks:
    """The peaks of a planned load, by the plan's actions and workers."""
    devices: dict[str, int] = {}
    for each in parts:
        devices[each.device] = devices.get(each.device, 0) + each.in_memory
    devices.pop(DISK, None)
    host = devices.pop(CPU, 0)
    # The host holds the workers' slots; a GPU holds what was sent and has not been cast yet.
    for device, workers in decided.workers.items():
        host += workers.nbytes
        if str(device) != CPU:
            devices[str(device)] += workers.nbytes // workers.slots
    host += max(map(_on_its_way, decided.conversions), default=0)
    here = [placement for placement in decided.placements if str(placement.device) == CPU]
    views = sum(placement.nbytes for placement in here if placement.action is Action.VIEW)
    # A pickled file is mapped as a whole and stays so until its last tensor is cast.
    cast = {p.stored.file for p in here if p.action is Action.CAST}
    pickled = {p.stored.file for p in decided.placements if p.stored.format is Format.PICKLE}
    file = views + max((each.stat().st_size for each in pickled if cast), default=0)
    return Peaks(host - views, file, devices, taken)


def _on_its_way(made: Conversion) -> int:
    """Bytes of the host that one converted tensor takes beside its place in the model."""
    # What goes to another device, or to disk, is put together on the host or sent piece by piece.
    taken = made.nbytes if str(made.device) == DISK else 0
    if made.pieces is None:  # computed: the sources as cast, and what the operations give back
        taken += made.nbytes
        taken += sum(
            each.nbytes // each.dtype.itemsize * made.dtype.itemsize
            for each in made.sources
            if each.dtype != made.dtype
        )
    return taken


def parse_budgets(text: str) -> dict[Any, int]:
    """`0=24GiB,cpu=64GiB` as accelerate takes it: the number or name of a device to bytes.

    Raises:
        BadBudget: an entry is not of that form.
    """
    from accelerate.utils import convert_file_size_to_int

    budgets: dict[Any, int] = {}
    for entry in text.split(","):
        device, _, size = (word.strip() for word in entry.partition("="))
        try:
            budgets[int(device) if device.isdigit() else device] = convert_file_size_to_int(size)
        except ValueError as cause:
            raise BadBudget(f"{entry!r} is not such as 0=24GiB or cpu=64GiB") from cause
    return budgets


def named(budgets: Mapping[Any, int]) -> dict[str, int]:
    """The budgets of `--max-memory` by the names that devices have in a plan."""
    accelerator = torch.accelerator.current_accelerator()
    kind = accelerator.type if accelerator else "cuda"
    return {f"{kind}:{d}" if isinstance(d, int) else d: size for d, size in budgets.items()}


def _fits(peaks: Peaks, budgets: Mapping[str, int]) -> Iterator[Fit]:
    """Each budgeted device, with what the planned load needs of it."""
    needs = {**peaks.devices, CPU: peaks.host}
    for device, budget in budgets.items():
        yield Fit(device, needs.get(device, 0), budget)


def _advice(decided: LoadPlan, parts: tuple[Part, ...], fits: tuple[Fit, ...]) -> Iterator[str]:
    """What to change where a plan's footprint does not fit, the least change first."""
    if all(fit.fits for fit in fits):
        return
    parameters = sum(part.parameters for part in parts)
    room = sum(fit.budget for fit in fits)
    largest = max(fit.budget for fit in fits)
    narrow = parameters * NARROW.itemsize
    if decided.dtype.itemsize > NARROW.itemsize and narrow <= largest:
        yield f"--dtype bfloat16 or float16: {size(narrow)} of weights"
    if sum(part.in_memory for part in parts) <= room and len(fits) > 1:
        yield "--device-map auto: the budgets together hold it"
    elif decided.dtype.itemsize > NARROW.itemsize and largest < narrow <= room:
        yield f"--dtype bfloat16 and --device-map auto: {size(narrow)} over all budgets"
    else:
        yield "--device-map auto with an offload_folder: the rest stays on disk"


def size(number: int) -> str:
    """Bytes of a footprint as people say them: `12.5 KiB`."""
    if number < 1024:
        return f"{number} bytes"
    power = min(3, (number.bit_length() - 1) // 10)
    return f"{number / 1024**power:.1f} {'KMG'[power - 1]}iB"


def _dtype_name(dtype: torch.dtype) -> str:
    """A footprint's dtype without "torch."."""
    return str(dtype).removeprefix("torch.")
