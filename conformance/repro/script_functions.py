"""What a load left, as places with values: functions that the script of `conformance repro` holds.

A place is a prefix, as in `dtype of`, and a name. The command notes what it expects with the same
functions with which the script notes what it finds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conformance.observe.facts import (
    model_of,
    observe_config,
    observe_device_map,
    observe_generation_config,
    observe_info,
    observe_modules,
    observe_tensors,
)
from conformance.observe.outputs import observe_outputs
from conformance.world.threads import how_it_differs

Places = dict[str, dict[str, Any]]

TENSOR_FACTS = {
    "dtype": "dtype of",
    "shape": "shape of",
    "stride": "stride of",
    "device": "device of",
    "requires_grad": "requires_grad of",
    "storage": "tie of",
    "fingerprint": "values of",
    "kind": "kind of",
    "class": "class of",
    "persistent": "persistence of",
}


def tensor_places(tensors: Mapping[str, Mapping[str, Any]]) -> Places:
    """A load's tensors as the script's places, from `observe_tensors`."""
    return {
        prefix: {name: facts[fact] for name, facts in tensors.items()}
        for fact, prefix in TENSOR_FACTS.items()
    }


def module_places(modules: Mapping[str, tuple[str, bool]]) -> Places:
    """A load's modules as the script's places, from `observe_modules`."""
    return {
        "class of module": {name or "(model)": facts[0] for name, facts in modules.items()},
        "training of": {name or "(model)": facts[1] for name, facts in modules.items()},
    }


def info_places(info: Mapping[str, Mapping[str, Any]] | None) -> Places:
    """A load's loading info as the script's places, from `observe_info`."""
    return {
        "returned:": {"loading info": info is not None},
        "container of": {name: facts["container"] for name, facts in (info or {}).items()},
        "keys in": {name: facts["values"] for name, facts in (info or {}).items()},
    }


def dict_places(prefix: str, found: Mapping[str, Any] | None) -> Places:
    """The script's places of a dict that a model may lack."""
    return {prefix: {"(all)": None} if found is None else dict(found)}


def tensors_found(result: Any) -> Places:
    """The script's places of the tensors that a load returned."""
    return tensor_places(observe_tensors(model_of(result)))


def modules_found(result: Any) -> Places:
    """The script's places of the modules that a load returned."""
    return module_places(observe_modules(model_of(result)))


def info_found(result: Any) -> Places:
    """The script's places of the loading info that a load returned."""
    return info_places(observe_info(result))


def config_found(result: Any, passed: Mapping[str, str]) -> Places:
    """The script's places of the config; `passed` says whether a config that was given changed."""
    return dict_places("config field", observe_config(model_of(result)) | dict(passed))


def generation_config_found(result: Any) -> Places:
    """The script's places of the generation config."""
    found = observe_generation_config(model_of(result))
    return dict_places("generation config field", found)


def device_map_found(result: Any) -> Places:
    """The script's places of the device map."""
    return dict_places("device of module", observe_device_map(model_of(result)))


def outputs_found(result: Any, greedy: bool) -> Places:
    """The script's places of what the model computes."""
    return dict_places("output", observe_outputs(model_of(result), greedy))


def files_in(folder: str) -> list[str]:
    """The names of all files and folders in the folder that the script loads."""
    return sorted(path.name for path in Path(folder).rglob("*"))


def config_with(model_class: Any, folder: str, changes: Mapping[str, Any]) -> Any:
    """The config of the script's folder, changed."""
    config = model_class.config_class.from_pretrained(folder)
    for name, value in changes.items():
        setattr(config, name, value)
    return config


def threads_found(threads: Sequence[Mapping[str, Any]]) -> str:
    """Of the script's loads at once: the first that differs from the load alone, and how."""
    told = [f"thread {t['thread']} of {t['of']}: {how_it_differs(t)}" for t in threads]
    return next((text for text in told if not text.endswith(": ")), "as alone")


def refusal(wanted: str, names: tuple[str, ...], error: BaseException | None) -> list[Places]:
    """The script's load must raise `wanted`, or "nothing": what is expected, and what it raised."""
    types = ["nothing"] if error is None else [each.__name__ for each in type(error).__mro__]
    raised = wanted if wanted in types else types[0] if error is None else f"{types[0]}: {error}"
    expected: Places = {"raised": {"by the load": wanted}}
    actual: Places = {"raised": {"by the load": raised}}
    if names and error is not None:
        expected["in the message"] = dict.fromkeys(names, "named")
        actual["in the message"] = {
            name: "named" if name in str(error) else f"not named by {str(error)!r}"
            for name in names
        }
    return [expected, actual]


def as_expected(expected: Places, actual: Places) -> bool:
    """Print the script's places that differ, or all if none does; True if none does."""
    same, other = [], []
    for prefix, places in expected.items():
        for name, wanted in places.items():
            found = actual.get(prefix, {}).get(name, "absent")
            if json.dumps(wanted, default=str) == json.dumps(found, default=str):
                same.append(f"{prefix} {name}: {wanted}, as expected")
            else:
                other.append(f"{prefix} {name}: expected {wanted}, actual {found}")
    print(*(other or same), sep="\n")
    print(f"{len(other)} of {len(other) + len(same)} places differ")
    return not other
