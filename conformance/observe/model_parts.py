"""What a model has beside its tensors: names in order, hooks, attributes, who has which config."""

from __future__ import annotations

from typing import Any

from torch import nn

# Attributes that a load sets on a module: where it came from, where it lies, in which mode it is.
OF_THE_LOAD = {
    "training",
    "name_or_path",
    "hf_device_map",
    "_is_hf_initialized",
    "_is_quantized",
    "_use_kernels",
    "_weight_conversions",
}

PLAIN = (bool, int, float, complex, str, bytes, type(None))


def names_in_order(model: nn.Module) -> dict[str, list[str]]:
    """The names of modules, parameters, buffers and state dict, in their order."""
    return {
        "modules": [name for name, _ in model.named_modules()],
        "parameters": [name for name, _ in model.named_parameters()],
        "parameters, each name": [n for n, _ in model.named_parameters(remove_duplicate=False)],
        "buffers": [name for name, _ in model.named_buffers()],
        "state dict": list(model.state_dict()),
    }


def config_owners(model: nn.Module) -> dict[str, str]:
    """Module to the first module with the very same config object, or generation config."""
    owners: dict[str, str] = {}
    for attribute in ("config", "generation_config"):
        first: dict[int, str] = {}
        for name, module in model.named_modules():
            held = vars(module).get(attribute)
            if held is not None:
                shown = name or "(model)"
                owners[f"{attribute} of {shown}"] = first.setdefault(id(held), shown)
    return owners


def hooks(model: nn.Module) -> dict[str, int]:
    """Module and kind, or parameter, to how many hooks it has; only where there are some."""
    found: dict[str, int] = {}
    for name, module in model.named_modules():
        for attribute, held in vars(module).items():
            if "hook" in attribute and hasattr(held, "__len__") and len(held):
                found[f"{name or '(model)'} {attribute}"] = len(held)
        if "forward" in vars(module):
            found[f"{name or '(model)'} forward"] = 1
    for name, parameter in model.named_parameters():
        # `_backward_hooks` are those of `register_hook`, the other of accumulated gradients.
        for attribute in ("_backward_hooks", "_post_accumulate_grad_hooks"):
            if held := getattr(parameter, attribute, None):
                found[f"{name} {attribute}"] = len(held)
    return found


def attributes(model: nn.Module) -> dict[str, str]:
    """Module and attribute to its value, of every attribute that is plain data."""
    return {
        f"{name or '(model)'} {attribute}": repr(value)
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if attribute not in OF_THE_LOAD and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    """Whether an attribute of a module is a number, text, or a sequence of such."""
    if isinstance(value, (list, tuple)):
        return all(_is_plain(each) for each in value)
    return isinstance(value, PLAIN)
