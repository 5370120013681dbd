"""Mutants of stage PLC: device map."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from conformance.mutants.planting import Load, around, coming_out, going_in, ignoring
from conformance.observe.loaders import reference

device_map_ignored = ignoring("device_map", "PLC-5", "plc/budget-tight")
max_memory_ignored = ignoring("max_memory", "PLC-8", "plc/budget-tight")


@going_in("PLC-1", "plc/device")
def device_by_name_only(load: Load) -> None:
    """A `torch.device` is refused where its name is taken."""
    if isinstance(load.options.get("device_map"), torch.device):
        raise TypeError("device_map must be a string or a dict")


@around("PLC-2", "plc/nonsense")
def nonsense_device_is_the_cpu(load: Load) -> Iterator[None]:
    """Where the device map cannot be carried out, the model is on the CPU."""
    try:
        yield
    except (ValueError, RuntimeError):
        load.result = load.run(device_map=None)


@going_in("PLC-3", "plc/empty")
def holes_on_the_cpu(load: Load) -> None:
    """What the device map has no place for is on the CPU."""
    if isinstance(load.options.get("device_map"), dict):
        load.options["device_map"].setdefault("", "cpu")


@coming_out("PLC-4", "plc/name")
def needless_device_map(load: Load) -> None:
    """A model on one device has a device map."""
    load.model.hf_device_map = {"": "cpu"}


@coming_out("PLC-5", "plc/budget-tight")
def wrong_device_map(load: Load) -> None:
    """The device map tells of the first place what is true of the last."""
    device_map = getattr(load.model, "hf_device_map", None)
    if device_map:
        device_map[next(iter(device_map))] = list(device_map.values())[-1]


@coming_out("PLC-6", "plc/budget-tight")
def layer_split_in_the_map(load: Load) -> None:
    """The device map has places for the halves of the last layer."""
    device_map = getattr(load.model, "hf_device_map", {})
    for name in [name for name in device_map if name.endswith("layers.2")]:
        place = device_map.pop(name)
        device_map |= {f"{name}.self_attn": place, f"{name}.mlp": place}


@coming_out("PLC-7", "plc/dict-unknown-module")
def unknown_module_refused(load: Load) -> None:
    """A device map that names a module the model does not have is refused."""
    device_map = load.options.get("device_map")
    names = {name for name, _ in [*load.model.named_modules(), *load.model.named_parameters()]}
    if isinstance(device_map, dict) and device_map.keys() - names:
        raise ValueError(f"device_map names {device_map.keys() - names}")


@going_in("PLC-11", "plc/budget-negative", of=reference)
def negative_budget_is_none(load: Load) -> None:
    """A budget that is not a size of at least nothing is one of nothing."""
    budgets = load.options.get("max_memory")
    if isinstance(budgets, dict) and any(budget in (None, -1) for budget in budgets.values()):
        load.options["max_memory"] = {
            name: 0 if budget in (None, -1) else budget for name, budget in budgets.items()
        }


@around("PLC-12", "plc/absent-name")
def absent_device_is_the_cpu(load: Load) -> Iterator[None]:
    """Where the machine does not have a device, the CPU takes its place."""
    try:
        yield
    except (AssertionError, RuntimeError, ValueError):
        load.result = load.run(device_map=None)
