"""Where each tensor goes: pure functions over a device map, module name to device or "disk"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from reference_loader.errors import BadOptions, MetaDevice
from reference_loader.model.sharing import Sharing

DISK = "disk"

# Asked for by name, computed from budgets by accelerate.
INFERRED = ("auto", "balanced", "balanced_low_0", "sequential")

DeviceMap = Mapping[str, Any]


def requested(device_map: Any, default: torch.device) -> DeviceMap | str | None:
    """What `device_map` asks for (PLC-1): a map, a word of `INFERRED`, or None for the CPU.

    Args:
        device_map: None, a device, its name or number, a dict, or a word of `INFERRED`.
        default: the device where torch makes tensors now.

    Raises:
        MetaDevice: nothing is asked for and the default is meta.
        BadOptions: no device of that name (PLC-2).
    """
    if device_map is None:
        if default.type == "meta":
            raise MetaDevice(
                "You are using `from_pretrained` with a meta device context manager, or meta is "
                "the default device: it has no memory to load weights into.",
                "Pass `device_map`, or call the model class itself for an empty model.",
            )
        return None if default.type == "cpu" else {"": default}
    if isinstance(device_map, str) and device_map in INFERRED:
        return device_map
    if not isinstance(device_map, Mapping):
        return {"": _device(device_map)}
    for where in device_map.values():
        _device(where)
    return dict(device_map)


def check(device_map: DeviceMap, names: Iterable[str]) -> None:
    """Raise unless every name has a device or is offloaded to disk.

    Raises:
        BadOptions: naming those that have none (PLC-2).
    """
    lost = [name for name in names if _module(name, device_map) is None]
    if lost:
        raise BadOptions(
            f"device_map has no device for {', '.join(lost[:4])} ({len(lost)} in all).",
            "Add their modules, or the entry '' for all other modules.",
        )


def check_disk(
    device_map: DeviceMap, names: Iterable[str], ties: Iterable[tuple[str, ...]]
) -> None:
    """Raise for a parameter that no module could fetch from the disk (PLC-9).

    Args:
        device_map: has a place for every name.
        names: of all parameters.
        ties: groups of names that are one parameter.

    Raises:
        BadOptions: naming the parameter.
    """
    on_disk = {name: place(name, device_map) == DISK for name in names}
    for name in on_disk.keys() & device_map.keys():
        module = _module(name.rpartition(".")[0], device_map)
        if module is None or (_device(device_map[module]) == DISK) != on_disk[name]:
            raise BadOptions(
                f"device_map offloads only one of {name!r} and its module to disk.",
                "Name the module alone: disk offload applies to all of its parameters.",
            )
    for group in ties:
        if len({on_disk.get(name, False) for name in group}) > 1:
            raise BadOptions(
                f"device_map offloads only some of the tied weights {', '.join(group)} to disk.",
                "Give their modules the same device.",
            )


def check_fetch(device_map: DeviceMap, modules: Mapping[str, nn.Module]) -> None:
    """Raise for a parameter on disk that accelerate would not fetch when it is used (PLC-9).

    It fetches the parameters of a module, one name each, when it calls the module's `forward`.

    Raises:
        BadOptions: naming the parameter.
    """
    for path, module in modules.items():
        own = {leaf: p for leaf, p in module._parameters.items() if p is not None}
        hooks = [type(hook).__module__ for hook in module._forward_pre_hooks.values()]
        reason = ""
        if type(module).forward is nn.Module.forward:
            reason = f"a {type(module).__name__} has no forward pass that could fetch it"
        elif any(name.startswith("torch.nn.utils.") for name in hooks):
            reason = "a hook of torch computes a weight from it before it is fetched"
        elif len({id(parameter) for parameter in own.values()}) < len(own):
            reason = "its module has it under two names"
        for leaf in own if reason else ():
            name = f"{path}.{leaf}" if path else leaf
            if place(name, device_map) == DISK:
                raise BadOptions(
                    f"device_map puts {name!r} on disk, but {reason}.",
                    "Leave the module on the CPU.",
                )


def check_sharing(device_map: DeviceMap, sharing: Sharing) -> None:
    """Raise for a tensor that has other users in the model, which would not move with it.

    Raises:
        BadOptions: naming the tensor.
    """
    for name in sorted(sharing.names):
        where = place(name, device_map)
        if where == DISK or (name in sharing.memory and where.type != "cpu"):
            raise BadOptions(
                f"device_map puts {name!r} on {where}, but another part of the model also uses it.",
                "Leave the module on the CPU.",
            )


def place(name: str, device_map: DeviceMap | None) -> Any:
    """The device of a tensor, or `DISK`: that of the longest module name it lies under (PLC-1)."""
    if device_map is None:
        return torch.device("cpu")
    return _device(device_map[_module(name, device_map) or ""])


def memory_device(name: str, device_map: DeviceMap | None) -> torch.device:
    """The same for what is never on disk: there the CPU."""
    found = place(name, device_map)
    return torch.device("cpu") if found == DISK else found


def needs_hooks(device_map: DeviceMap | None) -> bool:
    """Whether tensors must be moved while the model runs (PLC-4)."""
    places = set(map(str, (device_map or {}).values()))
    return len(places) > 1 or DISK in places


def budgets(max_memory: Mapping[Any, Any] | None) -> dict[str, int]:
    """`max_memory` as bytes, by `numbered` names; sizes in words are read as accelerate reads them.

    Raises:
        BadOptions: no device of that name, or a budget that is no size.
    """
    return {
        numbered(_device(where)): _bytes(where, size) for where, size in (max_memory or {}).items()
    }


def _bytes(where: Any, size: Any) -> int:
    """One budget in bytes."""
    from accelerate.utils import convert_file_size_to_int

    try:
        if isinstance(size, bool) or not isinstance(size, int | str):
            raise ValueError(f"it is a {type(size).__name__}")
        found = int(convert_file_size_to_int(size))
        if found < 0:
            raise ValueError("it is negative")
        return found
    except ValueError as cause:
        raise BadOptions(
            f"max_memory[{where!r}]={size!r} is not a size: {cause}.",
            "Give bytes, or text such as '24GiB'.",
        ) from cause


def refuse_absent(places: Iterable[Any]) -> None:
    """Raise for a device that this machine does not have.

    Raises:
        BadOptions: naming the device.
    """
    for device in dict.fromkeys(places):
        if device == DISK or device.type in ("cpu", "meta"):
            continue
        try:
            torch.empty(0, device=device)
        except Exception as cause:  # of another type for each kind of device
            raise BadOptions(
                f"device_map names {device}, which this machine cannot use: {cause}.",
                "Pass another `device_map`, or none for the CPU.",
            ) from cause


def numbered(where: Any) -> str:
    """The name of a device, "cuda:0" for "cuda"; of `DISK` that word."""
    whole = where == DISK or where.index is not None or where.type == "cpu"
    return str(where) if whole else f"{where}:0"


def _module(name: str, device_map: DeviceMap) -> str | None:
    while name not in device_map:
        if not name:
            return None
        name = name.rpartition(".")[0]
    return name


def _device(place: Any) -> Any:
    if place == DISK:
        return DISK
    try:
        if isinstance(place, bool) or (isinstance(place, int) and place < 0):
            raise ValueError("not the number of a device")
        if not isinstance(place, int):
            return torch.device(place)
        # The accelerator of that number; a plan may be for a machine that has one.
        accelerator = torch.accelerator.current_accelerator()
        return torch.device(accelerator.type if accelerator else "cuda", place)
    except (RuntimeError, TypeError, ValueError) as cause:
        raise BadOptions(
            f"device_map contains {place!r}, which is not a device: {cause}.",
            f"Give a device such as 'cpu' or 'cuda:0', {DISK!r}, or one of {', '.join(INFERRED)}.",
        ) from cause
