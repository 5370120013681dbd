"""Disk offload: what is left in its file or written, and the hooks of accelerate that fetch it."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Container, Iterable
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reference_loader.errors import BadOptions, DiskFull
from reference_loader.model.skeleton import put
from reference_loader.options import Options
from reference_loader.plan.decisions import Placement
from reference_loader.plan.devices import DISK, memory_device
from reference_loader.plan.plan import LoadPlan


class Offloaded:
    """Where the offloaded weights are, in the form that accelerate reads.

    Args:
        folder: the option `offload_folder`.
    """

    def __init__(self, folder: str | PathLike[str] | None) -> None:
        self.index: dict[str, Any] = {}
        self._folder = folder
        self._written: list[Path] = []

    def leave(self, placement: Placement) -> None:
        """Note a tensor that stays in its safetensors file."""
        self.index[placement.target] = {
            "safetensors_file": str(placement.stored.file),
            "weight_name": placement.stored.key,
            "dtype": str(placement.dtype).removeprefix("torch."),
        }

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Write a tensor that no safetensors file holds (OFF-3, OFF-5).

        Raises:
            BadOptions: there is no folder to write to.
            DiskFull: the disk is full (OFF-9).
        """
        from accelerate.utils import offload_weight

        if self._folder is None:
            raise BadOptions(
                f"device_map offloads {name!r} to disk, but no safetensors file holds it.",
                "Pass `offload_folder`.",
            )
        folder = Path(self._folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise BadOptions(
                f"offload_folder={str(folder)!r} cannot be made: {cause.strerror}.",
                "Pass a folder that can be written to.",
            ) from cause
        self._written.append(folder / f"{name}.dat")
        try:
            # The file is written through a mapping, where a full disk would end the process.
            if shutil.disk_usage(folder).free < tensor.nbytes:
                raise OSError(errno.ENOSPC, "no space left")
            self.index = offload_weight(tensor.detach(), name, str(folder), self.index)
        except OSError as cause:
            raise DiskFull(
                f"{name!r} ({tensor.nbytes:,} bytes) cannot be written to {folder}: {cause}.",
                "Free some disk space, or pass another `offload_folder`.",
            ) from cause

    def remove(self) -> None:
        """Delete what was written, since the load failed."""
        for path in self._written:
            path.unlink(missing_ok=True)

    def share(self, provider: str, names: Iterable[str]) -> None:
        """Have accelerate, which looks by name, find tied weights where their provider is."""
        entry = self.index.get(provider)
        if entry is None:
            return
        for name in names:
            self.index[name] = entry
            if self._folder is not None and "safetensors_file" not in entry:
                folder = Path(self._folder)
                self._written.append(folder / f"{name}.dat")
                shutil.copyfile(folder / f"{provider}.dat", self._written[-1])


def place_fresh(plan: LoadPlan, model: nn.Module, offloaded: Offloaded) -> None:
    """Move initialised parameters and buffers to their devices; one on disk leaves an empty one."""
    for name, fresh in plan.fresh.items():
        parameter, device = model.get_parameter(name), fresh.device
        if device == DISK:
            offloaded.write(name, parameter)
            device = torch.device("meta")
        if device != parameter.device:
            put(model, name, parameter.data.to(device), held=name in plan.sharing.held)
    stored = {each.target for each in plan.filled}
    moved: dict[tuple[int, torch.device], torch.Tensor] = {}  # one that modules share stays one
    for name, buffer in list(model.named_buffers(remove_duplicate=False)):
        if name in stored:
            continue
        # An initialisation may register a buffer of which the plan knows nothing.
        device = plan.buffers.get(name) or memory_device(name, plan.device_map)
        if device == buffer.device:
            continue
        if (id(buffer), device) not in moved:
            moved[id(buffer), device] = buffer.to(device)
        put(model, name, moved[id(buffer), device], held=name in plan.sharing.held)


def dispatch(
    plan: LoadPlan, model: Any, offloaded: Offloaded, options: Options, untied: Container[str]
) -> None:
    """Attach accelerate's hooks if the plan wants them (PLC-4, OFF-1).

    Raises:
        BadOptions: accelerate rejects the device map.
    """
    if not plan.hooks:
        return
    from accelerate import dispatch_model

    for first, *others in plan.ties.groups:
        offloaded.share(first, [name for name in others if name not in untied])
    try:
        dispatch_model(
            model,
            device_map=dict(plan.device_map or {}),
            offload_dir=options.offload_folder,
            offload_index=offloaded.index,
            offload_buffers=options.offload_buffers,
            skip_keys=getattr(model, "_skip_keys_device_placement", None),
        )
    except ValueError as cause:
        raise BadOptions(
            f"accelerate rejects device_map={plan.device_map!r}: {cause}",
            "Give each module one device, and none to a module inside another that has one.",
        ) from cause
