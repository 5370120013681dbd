"""Run a loader and note what it left: plain data, no tensors.

Runs inside the environment that is judged: imports nothing beyond the standard library, torch,
transformers and our own packages.
"""

from __future__ import annotations

import atexit
import gc
import hashlib
import io
import json
import logging
import os
import resource
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from conformance.absolute import check
from conformance.case import Case, CommitId, ConfigObject, EmptyFolder, StoredStateDict, Torch
from conformance.fingerprint import fingerprint
from conformance.hub_world import commit_id, sourced
from conformance.loaders import Loader
from conformance.outputs import observe_outputs
from conformance.records import Observation

SEED = 20_000


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

    def run() -> Any:
        with sourced(case, source, options, asked) as given:
            return loader(model_class, given, **options)

    result, load = _load(run)
    load = replace(load, asked=asked)
    if load.exception is not None:
        return Loaded(load, None)
    with quiet():
        noted = _describe(case, result, passed_config, load)
        model = _model_of(result)
        return Loaded(replace(noted, findings=tuple(check(case, source, model, noted))), model)


def _load(run: Callable[[], Any]) -> tuple[Any, Observation]:
    """What the loader returns, and what the load did to the process, which is then put back."""
    before, peak, started = process_state(), _peak_bytes(), time.perf_counter()
    result, described = None, None
    with quiet(), _put_back():
        try:
            with _poisoned_memory():
                result = run()
        except (Exception, SystemExit) as exception:
            types = [t.__name__ for t in type(exception).__mro__]
            described = {"types": types, "message": str(exception)}
        return result, Observation(
            exception=described,
            seconds=time.perf_counter() - started,
            peak_bytes=_peak_bytes() - peak,
            state={"before": before, "after": process_state()},
        )


def _describe(
    case: Case, result: Any, passed_config: tuple[Any, str] | None, load: Observation
) -> Observation:
    model: Any = _model_of(result)
    config = _plain(model.config.to_dict()) if hasattr(model.config, "to_dict") else model.config
    if passed_config is not None:
        given, before = passed_config
        config = config | {"(the config passed)": _unchanged(given, before)}
    generation = getattr(model, "generation_config", None)
    device_map = getattr(model, "hf_device_map", None)
    return replace(
        load,
        tensors=observe_tensors(model),
        modules={name: (type(m).__name__, m.training) for name, m in model.named_modules()},
        info=_info(result),
        config=config,
        generation_config=None if generation is None else _plain(generation.to_dict()),
        device_map=None if device_map is None else {k: str(v) for k, v in device_map.items()},
        outputs=observe_outputs(model, greedy=case.greedy),
    )


def observe_tensors(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Facts of every parameter and every buffer, persistent or not."""
    facts: dict[str, dict[str, Any]] = {}
    stores: dict[int, str] = {}
    persistent = set(model.state_dict(keep_vars=True))
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, tensor in (parameters | dict(model.named_buffers(remove_duplicate=False))).items():
        pointer = 0 if tensor.is_meta else tensor.untyped_storage().data_ptr()
        facts[name] = {
            "kind": "parameter" if name in parameters else "buffer",
            "class": type(tensor).__name__,
            "persistent": name in persistent,
            "dtype": str(tensor.dtype),
            "shape": list(tensor.shape),
            "stride": list(tensor.stride()),
            "device": str(tensor.device),
            "requires_grad": tensor.requires_grad,
            "storage": stores.setdefault(pointer, name) if pointer else name,
            "fingerprint": fingerprint(tensor),
        }
    return facts


def process_state() -> dict[str, Any]:
    """What belongs to the process and not to a load."""
    return {
        "default_dtype": str(torch.get_default_dtype()),
        "default_device": str(torch.get_default_device()),
        "grad_enabled": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "rng": fingerprint(torch.get_rng_state()),
        "environment": hashlib.sha256(repr(sorted(os.environ.items())).encode()).hexdigest()[:16],
        "warning_filters": hashlib.sha256(repr(warnings.filters).encode()).hexdigest()[:16],
        "open_files": _open_files(),
    }


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


@contextmanager
def _poisoned_memory() -> Iterator[None]:
    """Memory that nobody wrote to holds NaN: what is left uninitialised shows every time."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)


@contextmanager
def _put_back() -> Iterator[None]:
    """A loader that leaves the process changed must not change how the next one is observed."""
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    grad, threads, environment = torch.is_grad_enabled(), torch.get_num_threads(), dict(os.environ)
    try:
        yield
    finally:
        if torch.get_default_device() != device:
            torch.set_default_device(None)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        torch.set_num_threads(threads)
        if os.environ != environment:
            os.environ.clear()
            os.environ.update(environment)


def _options(
    case: Case, source: Path, model_class: type | None
) -> tuple[dict[str, Any], tuple[Any, str] | None]:
    """The keyword arguments, and a config object among them with its text before the load."""
    options = {"output_loading_info": True} | dict(case.options)
    passed = None
    for name, value in options.items():
        if isinstance(value, Torch):
            member, _, argument = value.name.partition(":")
            found = getattr(torch, member)
            options[name] = found(argument) if argument else found
        elif isinstance(value, EmptyFolder):
            options[name] = _empty_folder()
        elif isinstance(value, CommitId):
            options[name] = commit_id(source)
        elif isinstance(value, StoredStateDict):
            options[name] = load_file(source / "model.safetensors")
        elif isinstance(value, ConfigObject):
            config = model_class.config_class.from_pretrained(str(source))  # type: ignore[union-attr]
            for field, changed in value.changes.items():
                setattr(config, field, changed)
            options[name], passed = config, (config, _text(config))
    return options, passed


def _empty_folder() -> Path:
    """Goes with the process: the model reads from it as long as it lives."""
    folder = Path(tempfile.mkdtemp(prefix="conformance-offload-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _unchanged(config: Any, before: str) -> str:
    return "unchanged" if _text(config) == before else f"was {before}, is {_text(config)}"


def _text(config: Any) -> str:
    return json.dumps(_plain(config.to_dict()), sort_keys=True)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _model_of(result: Any) -> nn.Module:
    model = result[0] if isinstance(result, tuple) else result
    if not isinstance(model, nn.Module):
        raise TypeError(f"the loader returned {type(model).__name__}, no module")
    return model


def _info(result: Any) -> dict[str, dict[str, Any]] | None:
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


def _open_files() -> int:
    """Sockets aside: a client of the Hub keeps its connections, to use them again."""
    folder = Path("/proc/self/fd")
    return sum(map(_is_file, folder.iterdir())) if folder.is_dir() else 0


def _is_file(descriptor: Path) -> bool:
    try:
        return not str(descriptor.readlink()).startswith("socket:")
    except OSError:  # the descriptor of the listing itself
        return False


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def warm_up(case: Case, *loaders: Loader) -> None:
    """Load once and forget: what happens once in a process is over before it is observed."""
    for loader in loaders:
        with suppress(Exception):  # what is wrong with a loader is for its cases to say
            observe(case, loader)
    gc.collect()
    gc.freeze()  # what is imported stays; collecting between cases then costs next to nothing
