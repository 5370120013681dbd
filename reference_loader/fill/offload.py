"""Weights that stay on disk, and the hooks of accelerate that fetch them while the model runs."""

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
from reference_loader.model.skeleton import like, put
from reference_loader.options import Options
from reference_loader.plan.devices import DISK, needs_hooks, place
from reference_loader.plan.plan import LoadPlan, Placement


class Offloaded:
    """Where the weights on disk are, in the form that accelerate reads.

    What safetensors hold is read from where it lies; anything else is written to the folder.
    """

    def __init__(self, folder: str | PathLike[str] | None) -> None:
        self.index: dict[str, Any] = {}
        self._folder = folder
        self._written: list[Path] = []

    def leave(self, placement: Placement) -> bool:
        """Note a stored tensor that can stay in its file; False for one that cannot."""
        file = placement.stored.file
        if file.suffix != ".safetensors":
            return False
        self.index[placement.target] = {
            "safetensors_file": str(file),
            "weight_name": placement.stored.key,
            "dtype": str(placement.dtype).removeprefix("torch."),
        }
        return True

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Write a tensor that lies in no file it could be read from (OFF-3).

        Raises:
            BadOptions: there is no folder to write to.
            DiskFull: it takes no more (OFF-9).
        """
        from accelerate.utils import offload_weight

        if self._folder is None:
            raise BadOptions(
                f"device_map puts {name!r} on disk, where it is not stored as it is needed.",
                "Pass `offload_folder`.",
            )
        folder = Path(self._folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._written.append(folder / f"{name}.dat")
        try:
            # The file is written through a mapping, where a full disk would end the process.
            if shutil.disk_usage(folder).free < tensor.nbytes:
                raise OSError(errno.ENOSPC, "no space left")
            self.index = offload_weight(tensor.detach(), name, str(folder), self.index)
        except OSError as cause:
            told = f"{name!r}, {tensor.nbytes:,} bytes, cannot be written to {folder}: {cause}."
            raise DiskFull(told, "Make room, or pass another `offload_folder`.") from cause

    def remove(self) -> None:
        """Take back what was written, since the load failed."""
        for path in self._written:
            path.unlink(missing_ok=True)

    def share(self, provider: str, names: Iterable[str]) -> None:
        """Let tied names be found where their provider is; accelerate looks for a file by name."""
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
    """Move the initialised parameters to where they belong; one on disk leaves an empty one."""
    for name in plan.fresh:
        parameter, where = model.get_parameter(name), place(name, plan.device_map)
        if where == DISK:
            offloaded.write(name, parameter)
        where = torch.device("meta") if where == DISK else where
        if where != parameter.device:
            put(model, name, like(parameter, parameter.data.to(where)))


def dispatch(
    plan: LoadPlan, model: Any, offloaded: Offloaded, options: Options, untied: Container[str]
) -> None:
    """Attach the hooks where the map has more than one place (PLC-4, OFF-1).

    Raises:
        BadOptions: accelerate cannot place the model so.
    """
    if not needs_hooks(plan.device_map):
        return
    from accelerate import dispatch_model

    for first, *others in plan.ties:
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
            f"accelerate cannot place the model by device_map={plan.device_map!r}: {cause}",
            "Give each module one place, and none to a module inside another that has one.",
        ) from cause
