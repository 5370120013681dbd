"""Run a loader and note what it left: plain data, no tensors, no verdict.

Runs in the environment that is judged: imports nothing beyond the standard library, torch,
transformers and our own packages.
"""

from __future__ import annotations

import gc
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from conformance.cases.case import (
    SEED,
    Case,
)
from conformance.observe.facts import (
    model_of,
    observe_config,
    observe_device_map,
    observe_generation_config,
    observe_info,
    observe_modules,
    observe_tensors,
    unchanged,
)
from conformance.observe.float64 import SAMPLE, accuracy
from conformance.observe.gradients import observe_gradients
from conformance.observe.keywords import keywords
from conformance.observe.loaders import Loader
from conformance.observe.outputs import observe_logits, observe_outputs
from conformance.observe.passed_options import changed_options, option_facts
from conformance.observe.tensor_details import observe_details
from conformance.observe.usage import observe_usage
from conformance.observe.value_types import observe_types
from conformance.results.records import NO_MODEL, Observation
from conformance.world.hostile_filesystem import copied
from conformance.world.hub_world import Served, sourced
from conformance.world.mapped_files import mapped, watched
from conformance.world.messages import Messages, quiet
from conformance.world.process import (
    base_state,
    noted_interrupts,
    poisoned_memory,
    put_back,
    surrounded,
)
from conformance.world.snapshot import Snapshot, own_temporary_folder
from conformance.world.source_files import changed_files, source_files
from conformance.world.standard_input import ended_input
from conformance.world.threads import load_in_threads
from conformance_fixtures.write import discard

# The name under which a config object that was given to the load stands among the config's fields.
PASSED = "(the config passed)"


@dataclass(frozen=True)
class Loaded:
    """An observation with the model that it describes, None if the load failed."""

    observation: Observation
    model: nn.Module | None


def observe(case: Case, loader: Loader, measured: bool = False) -> Loaded:
    """Load `case` with `loader` under a fixed seed and note everything that can be compared.

    Args:
        case: what to load, and by its clauses which facts are needed beyond the usual ones.
        loader: what loads.
        measured: whether to note how close the logits are to float64 (`float64.accuracy`).
    """
    # Others load the same checkpoint meanwhile, and a loader may write to it.
    copy = copied(case.source()) if "STA-17" in case.clauses else nullcontext(case.source())
    with copy as source:
        return _observed(case, source, loader, measured)


def _observed(case: Case, source: Path, loader: Loader, measured: bool) -> Loaded:
    """See `observe`; the checkpoint lies in this folder."""
    model_class = case.model_class()
    options, passed_config = keywords(case, source, model_class)
    given = option_facts(options)
    served: Served | None = None
    threads: list[dict[str, Any]] = []

    def load() -> Any:
        assert served is not None
        result = loader(model_class, served.source, **options)
        if not case.saved:
            return result
        with tempfile.TemporaryDirectory(prefix="conformance-saved-") as saved:
            model_of(result).save_pretrained(saved)  # type: ignore[operator]
            again = None if model_class is None else type(model_of(result))
            result = loader(again, saved, **options)
            config: Any = getattr(model_of(result), "config", None)
            if hasattr(config, "_name_or_path"):  # else the name of the temporary folder
                config._name_or_path = served.source
            return result

    def run() -> Any:
        nonlocal served, threads
        with sourced(case, source, options) as served:
            if case.threads == 1:
                return load()
            result, threads = load_in_threads(case.threads, load, _facts_of)
            if isinstance(result, Exception):
                raise result
            return result

    gc.collect()
    torch.manual_seed(SEED)
    with watched() if "MEM-3" in case.clauses else nullcontext() as resident:
        result, seen = _load(run, case, source)
    seen = replace(
        seen,
        asked=served.requested() if served else {},
        threads=tuple(threads),
        resident_bytes=resident.peak if resident else None,
    )
    seen = _with_options(seen, changed_options(given, option_facts(options)))
    if seen.exception is None and (told := _no_model(result)):
        seen = replace(seen, exception={"types": [NO_MODEL], "message": told})
    if seen.exception is not None:
        return Loaded(seen, None)
    seen = replace(seen, state={**seen.state, "left": _left(options)})
    with quiet():
        model = model_of(result)
        seen = _described(case, source, result, seen)
        if passed_config is not None:
            seen = replace(seen, config={**seen.config, PASSED: unchanged(*passed_config)})
        seen = _with_outputs(case, model, seen, measured)
        return Loaded(_with_usage(case, source, loader, seen), model)


def _no_model(result: Any) -> str:
    """What the loader returned instead of a model; "" if it is one."""
    try:
        model_of(result)
    except TypeError as told:
        return str(told)
    return ""


def _facts_of(result: Any) -> dict[str, Any]:
    """What must be the same for every load that runs in one of several threads.

    Not the values of a tensor that the loading info calls fresh: threads draw from one generator.
    """
    tensors = observe_tensors(model_of(result))
    info = result[1] if isinstance(result, tuple) else {}
    fresh = {each[0] for each in info.get("mismatched_keys", ())} | {*info.get("missing_keys", ())}
    return {
        name: {fact: value for fact, value in facts.items() if fact != "fingerprint"}
        if name in fresh
        else facts
        for name, facts in tensors.items()
    }


def _load(run: Callable[[], Any], case: Case, source: Path) -> tuple[Any, Observation]:
    """What the loader returns, and what the load did to the process, which is then restored, and
    to the folder of the checkpoint."""
    result, described = None, None
    # Poisoning memory is a setting of torch, which a loader may set as well.
    poisoned = nullcontext() if "STA-10" in case.clauses else poisoned_memory()
    with (
        quiet() as messages,
        surrounded(case.under),
        ended_input(),
        own_temporary_folder(),
        poisoned,
        noted_interrupts("STA-16" in case.clauses) as interrupts,
    ):
        snapshot, peak = Snapshot(whole="STA-11" in case.clauses), _peak_bytes()
        files = source_files(source)
        with put_back(snapshot):
            messages.clear()
            before, started = base_state(), time.perf_counter()
            try:
                result = run()
            except BaseException as exception:
                # The user's Ctrl-C is none of the loader's, unless the case is about one.
                if interrupts and "STA-16" not in case.clauses:
                    raise
                types = [t.__name__ for t in type(exception).__mro__]
                described = {"types": types, "message": str(exception)}
            seconds = time.perf_counter() - started
            told = _told(case, messages, str(described))
            changes = snapshot.changes() | _written(case, files, source)
            after = base_state(snapshot, before["open_files"])
            after |= {name: now for name, (_, now) in changes.items()}
            before |= {name: then for name, (then, _) in changes.items()}
        return result, Observation(
            exception=described,
            seconds=seconds,
            peak_bytes=_peak_bytes() - peak,
            state={"before": before, "after": after},
            messages=told,
        )


def _told(case: Case, messages: Messages, raised: str) -> dict[str, list[str]]:
    """What the load told, by level and logger, and where it told the token among its options."""
    token = case.options.get("token")
    secret = token if isinstance(token, str) else ""
    places = messages.places_of(secret) if secret else []
    places += ["exception"] * bool(secret and secret in raised)
    return {"kinds": messages.kinds(), "secret": places}


def _written(case: Case, before: dict[str, str], source: Path) -> dict[str, tuple[str, str]]:
    """What the load did to the folder of the checkpoint, by names of facts of the process."""
    changed = changed_files(before, source_files(source))
    if changed and case.folder is None and source == case.source():
        discard(source)  # it is a fixture, which the next case would find spoilt
    return {f"checkpoint file {name}": told for name, told in changed.items()}


def _described(case: Case, source: Path, result: Any, seen: Observation) -> Observation:
    """The model as the load left it."""
    model: Any = model_of(result)
    info = observe_info(result)
    return replace(
        seen,
        tensors=observe_tensors(model),
        details=observe_details(case, source, model, info),
        mappings=len(mapped(source)) if "MEM-2" in case.clauses else None,
        modules=observe_modules(model),
        info=info,
        config=_without_path(observe_config(model), source)
        if case.folder
        else observe_config(model),
        generation_config=observe_generation_config(model),
        device_map=observe_device_map(model),
        types=observe_types(result, model),
    )


def _without_path(config: Any, source: Path) -> Any:
    """A user's config without the path of the checkpoint, which may be a copy of it."""
    if not isinstance(config, dict):
        return config
    return {
        name: "(the checkpoint)" if value == str(source) else value
        for name, value in config.items()
    }


def _with_outputs(case: Case, model: Any, seen: Observation, measured: bool) -> Observation:
    """What the model computes. It comes last: a forward may change the model, as a Switch
    Transformer casts its routers."""
    return replace(
        seen,
        outputs=observe_outputs(model, case.greedy, case.new_tokens),
        logits=_logits(case, model),
        accuracy=accuracy(model) if measured else None,
    )


def _logits(case: Case, model: Any) -> list[float] | None:
    """All logits where the case is about them; some on a checkpoint that was not made here."""
    if {"OUT-2", "CNV-8"} & set(case.clauses):
        return observe_logits(model)
    return observe_logits(model, SAMPLE) if case.folder is not None else None


def _with_usage(case: Case, source: Path, loader: Loader, seen: Observation) -> Observation:
    """What can be done with the model. Each use has a model that is loaded for it: what it does to
    that model shows nowhere else."""

    def again(folder: Path, without: tuple[str, ...] = (), **changed: Any) -> Any:
        model_class = changed.pop("model_class", None) or case.model_class()
        options = keywords(case, folder, model_class)[0]
        kept = {name: value for name, value in options.items() if name not in without}
        given = str(folder) if "state_dict" in without else case.given_source(folder)
        torch.manual_seed(SEED)
        with poisoned_memory():
            return loader(model_class, given, **(kept | changed))

    gradients = {"USE-1", "USE-2"} & set(case.clauses)
    return replace(
        seen,
        usage=observe_usage(case, source, again),
        gradients=observe_gradients(model_of(again(source)), "USE-2" in gradients)
        if gradients
        else {},
    )


def _with_options(seen: Observation, changed: Mapping[str, tuple[str, str]]) -> Observation:
    """What the load did to the caller's options is noted with the state of the process (CFG-40)."""
    state = dict(seen.state)
    for number, when in enumerate(("before", "after")):
        state[when] = {**state[when], **{name: told[number] for name, told in changed.items()}}
    return replace(seen, state=state)


def _left(options: Mapping[str, Any]) -> dict[str, Any]:
    """The weights in the offload folder of the load, in whatever form (OFF-6)."""
    folder = options.get("offload_folder")
    if not isinstance(folder, Path):
        return {}
    files = sorted(path.name for path in folder.rglob("*") if path.name != "index.json")
    return {"offload_folder": [name.rpartition(".")[0] for name in files]}


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def warm_up(case: Case, *loaders: Loader) -> None:
    """Load once and discard the result: what happens once in a process is then over."""
    for loader in loaders:
        with suppress(Exception):  # what is wrong with a loader shows in its cases
            observe(case, loader)
    gc.collect()
    gc.freeze()  # imported objects stay; collecting between cases then costs next to nothing
