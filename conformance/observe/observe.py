"""Run a loader and note what it left: plain data, no tensors.

Runs inside the environment that is judged: imports nothing beyond the standard library, torch,
transformers and our own packages.
"""

from __future__ import annotations

import atexit
import gc
import io
import json
import logging
import resource
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import (
    AbstractContextManager,
    contextmanager,
    nullcontext,
    redirect_stdout,
    suppress,
)
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from conformance.cases.case import (
    SEED,
    Case,
    CommitId,
    ConfigFolder,
    ConfigObject,
    EmptyFolder,
    StoredStateDict,
    Torch,
)
from conformance.judge.checks import check
from conformance.observe.loaders import Loader
from conformance.observe.outputs import observe_outputs
from conformance.results.fingerprint import fingerprints
from conformance.results.records import Divergence, Observation
from conformance.world import mapped_files
from conformance.world.hub_world import commit_id, sourced
from conformance.world.process import Library, poisoned_memory, process_state, put_back, surrounded
from conformance.world.threads import load_in_threads

# Where a config object that was given to the load stands among the config's fields.
PASSED = "(the config passed)"


@dataclass(frozen=True)
class Loaded:
    """An observation with the model it is of, None if the load failed."""

    observation: Observation
    model: nn.Module | None


def observe(case: Case, loader: Loader) -> Loaded:
    """Load `case` with `loader` under a fixed seed and note everything that can be compared."""
    source = case.source()
    model_class = case.model_class()
    options, passed_config = _options(case, source, model_class)
    gc.collect()
    torch.manual_seed(SEED)
    asked: dict[str, int] = {}
    odd: list[Divergence] = []

    def run() -> Any:
        with sourced(case, source, options, asked) as given:
            return load_in_threads(
                case.threads, lambda: loader(model_class, given, **options), _facts, odd
            )

    with _watched(case, source, odd):
        result, load = _load(run, case.under)
    load = replace(load, asked=asked, findings=tuple(odd))
    if load.exception is not None:
        return Loaded(load, None)
    load = replace(load, state={**load.state, "left": _left(options)})
    with quiet():
        noted = _describe(case, result, passed_config, load)
        model = model_of(result)
        findings = (*odd, *check(case, source, model, noted))
        return Loaded(replace(noted, findings=findings), model)


def _watched(case: Case, source: Path, found: list[Divergence]) -> AbstractContextManager[None]:
    """Looking at the pages of the source, where the case is about them."""
    if mapped_files.CLAUSE not in case.clauses:
        return nullcontext()
    return mapped_files.watched(sum(path.stat().st_size for path in source.iterdir()), found)


def _load(run: Callable[[], Any], under: tuple[str, ...]) -> tuple[Any, Observation]:
    """What the loader returns, and what the load did to the process, which is then put back."""
    library, peak = Library(), _peak_bytes()
    result, described = None, None
    with quiet(), put_back(library), surrounded(under):
        before, started = process_state(library), time.perf_counter()
        try:
            with poisoned_memory():
                result = run()
        except (Exception, SystemExit) as exception:
            types = [t.__name__ for t in type(exception).__mro__]
            described = {"types": types, "message": str(exception)}
        return result, Observation(
            exception=described,
            seconds=time.perf_counter() - started,
            peak_bytes=_peak_bytes() - peak,
            state={"before": before, "after": process_state(library)},
        )


def _describe(
    case: Case, result: Any, passed_config: tuple[Any, str] | None, load: Observation
) -> Observation:
    model: Any = model_of(result)
    config = observe_config(model)
    if passed_config is not None:
        config = config | {PASSED: unchanged(*passed_config)}
    return replace(
        load,
        tensors=observe_tensors(model),
        modules=observe_modules(model),
        info=observe_info(result),
        config=config,
        generation_config=observe_generation_config(model),
        device_map=observe_device_map(model),
        outputs=observe_outputs(model, case.greedy, case.new_tokens),
    )


def observe_modules(model: nn.Module) -> dict[str, tuple[str, bool]]:
    """Class name and training flag of every module."""
    return {name: (type(m).__name__, m.training) for name, m in model.named_modules()}


def observe_config(model: Any) -> Any:
    """The config as plain data."""
    return _plain(model.config.to_dict()) if hasattr(model.config, "to_dict") else model.config


def observe_generation_config(model: Any) -> Any:
    """The generation config as plain data; None if the model has none."""
    generation = getattr(model, "generation_config", None)
    return None if generation is None else _plain(generation.to_dict())


def observe_device_map(model: Any) -> dict[str, str] | None:
    """Module to device; None if the model has no device map."""
    device_map = getattr(model, "hf_device_map", None)
    return None if device_map is None else {k: str(v) for k, v in device_map.items()}


def observe_tensors(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Facts of every parameter and every buffer, persistent or not."""
    facts: dict[str, dict[str, Any]] = {}
    stores: dict[tuple[bool, int], str] = {}
    persistent = set(model.state_dict(keep_vars=True))
    parameters = dict(model.named_parameters(remove_duplicate=False))
    tensors = parameters | dict(model.named_buffers(remove_duplicate=False))
    digests = fingerprints(tensors)
    for name, tensor in tensors.items():
        # What is on disk has no memory; there one parameter is one storage.
        pointer = id(tensor) if tensor.is_meta else tensor.untyped_storage().data_ptr()
        # What has no elements shares none, wherever it points to.
        shared = pointer and tensor.numel()
        facts[name] = {
            "kind": "parameter" if name in parameters else "buffer",
            "class": type(tensor).__name__,
            "persistent": name in persistent,
            "dtype": str(tensor.dtype),
            "shape": list(tensor.shape),
            "stride": list(tensor.stride()),
            "device": str(tensor.device),
            "requires_grad": tensor.requires_grad,
            "storage": stores.setdefault((tensor.is_meta, pointer), name) if shared else name,
            "fingerprint": digests[name],
        }
    return facts


@contextmanager
def quiet() -> Iterator[None]:
    """Keep loaders from writing to the terminal."""
    names = ("transformers", "huggingface_hub", "accelerate", "reference_loader", "py.warnings")
    loggers = [logging.getLogger(name) for name in names]
    handlers = [(logger, logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [logging.NullHandler()], False
    progress = _progress_bars(False)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings(record=True):
            yield
    finally:
        _progress_bars(progress)
        for logger, before, propagate in handlers:
            logger.handlers, logger.propagate = before, propagate


def _progress_bars(wanted: bool) -> bool:
    from transformers.utils import logging as noise

    before = noise.is_progress_bar_enabled()
    (noise.enable_progress_bar if wanted else noise.disable_progress_bar)()
    return bool(before)


def _options(
    case: Case, source: Path, model_class: type | None
) -> tuple[dict[str, Any], tuple[Any, str] | None]:
    """The keyword arguments, and a config object among them with its text before the load."""
    options = {"output_loading_info": True} | dict(case.options)
    passed = None
    for name, value in options.items():
        if isinstance(value, Torch):
            options[name] = _of_torch(value)
        elif name == "device_map" and isinstance(value, Mapping):
            options[name] = {key: _of_torch(place) for key, place in value.items()}
        elif isinstance(value, EmptyFolder):
            options[name] = _empty_folder()
        elif isinstance(value, ConfigFolder):
            options[name] = value.path()
        elif isinstance(value, CommitId):
            options[name] = commit_id(source)
        elif isinstance(value, StoredStateDict):
            options[name] = load_file(source / "model.safetensors")
        elif isinstance(value, ConfigObject):
            config = model_class.config_class.from_pretrained(str(source))  # type: ignore[union-attr]
            for field, changed in value.changes.items():
                setattr(config, field, changed)
            options[name], passed = config, (config, text_of(config))
    return options, passed


def _of_torch(value: Any) -> Any:
    """The member of torch that a `Torch` names; any other value as it is."""
    if not isinstance(value, Torch):
        return value
    member, _, argument = value.name.partition(":")
    found = getattr(torch, member)
    return found(argument) if argument else found


def _left(options: Mapping[str, Any]) -> dict[str, Any]:
    """The weights in the folder that the load was given to write to, in whatever form (OFF-6)."""
    folder = options.get("offload_folder")
    if not isinstance(folder, Path):
        return {}
    files = sorted(path.name for path in folder.rglob("*") if path.name != "index.json")
    return {"offload_folder": [name.rpartition(".")[0] for name in files]}


def _empty_folder() -> Path:
    """Goes with the process: the model reads from it as long as it lives."""
    folder = Path(tempfile.mkdtemp(prefix="conformance-offload-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def unchanged(config: Any, before: str) -> str:
    """Whether the config object still has its text, in words."""
    return "unchanged" if text_of(config) == before else f"was {before}, is {text_of(config)}"


def text_of(config: Any) -> str:
    """All that a config object says."""
    return json.dumps(_plain(config.to_dict()), sort_keys=True)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def model_of(result: Any) -> nn.Module:
    """The model, alone or beside its loading info.

    Raises:
        TypeError: the loader returned none.
    """
    model = result[0] if isinstance(result, tuple) else result
    if not isinstance(model, nn.Module):
        raise TypeError(f"the loader returned {type(model).__name__}, no module")
    return model


def _facts(result: Any) -> dict[str, Any]:
    """What is the same of every load that runs in one of several threads."""
    return observe_tensors(model_of(result))


def observe_info(result: Any) -> dict[str, dict[str, Any]] | None:
    """Loading info: field to container and values; None if none was returned."""
    if not isinstance(result, tuple):
        return None
    if not isinstance(result[1], Mapping):
        return {"(all)": {"container": type(result[1]).__name__, "values": []}}
    return {
        field: {"container": type(found).__name__, "values": sorted(map(_entry, found))}
        for field, found in result[1].items()
    }


def _entry(value: Any) -> str:
    """A key, or `name [stored shape] [model's shape]`; a bare name where the shapes are lost."""
    if isinstance(value, (tuple, list)):
        return " ".join(str(list(p)) if isinstance(p, (tuple, list)) else str(p) for p in value)
    return str(value)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def warm_up(case: Case, *loaders: Loader) -> None:
    """Load once and forget: what happens once in a process is over before it is observed."""
    for loader in loaders:
        with suppress(Exception):  # what is wrong with a loader is for its cases to say
            observe(case, loader)
    gc.collect()
    gc.freeze()  # what is imported stays; collecting between cases then costs next to nothing
