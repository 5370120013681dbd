"""The story of a load, top to bottom: prepare, decide, initialise, read, finish."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reference_loader.errors import BadOptions
from reference_loader.fill.finish import finish
from reference_loader.fill.offload import Offloaded
from reference_loader.fill.pump import pump
from reference_loader.model.architecture import Architecture
from reference_loader.model.choose import choose
from reference_loader.model.initialise import initialise
from reference_loader.model.skeleton import Skeleton, build
from reference_loader.options import Options, Source
from reference_loader.plan import decide
from reference_loader.plan.devices import woken
from reference_loader.plan.dtypes import model_dtype
from reference_loader.plan.plan import LoadPlan
from reference_loader.report import LoadReport, refuse_disagreements
from reference_loader.source.checkpoint import (
    locate,
    of_file,
    of_state_dict,
    open_config,
    open_folder,
)
from reference_loader.source.files import is_file

Loaded = nn.Module | tuple[nn.Module, dict[str, Any]]


@torch.inference_mode(mode=False)  # the caller's makes tensors that no gradient can pass (STA-4)
def load_model(source: Source | None, model_args: tuple[Any, ...], options: Options) -> Loaded:
    """The model, or the model and its loading info: what `api.from_pretrained` returns."""
    with _collected_later(), woken(options.device_map):
        return _load(source, model_args, options)


def plan_load(source: Source | None, model_args: tuple[Any, ...], options: Options) -> LoadPlan:
    """The decisions of the same load, without reading a weight: what `api.plan` returns."""
    with _collected_later():
        return _prepare(source, model_args, options).plan


def _load(source: Source | None, model_args: tuple[Any, ...], wanted: Options) -> Loaded:
    prepared = _prepare(source, model_args, wanted)
    plan, skeleton, architecture = prepared.plan, prepared.skeleton, prepared.architecture
    if wanted.strict:
        refuse_disagreements(plan)
    if not wanted.ignore_mismatched_sizes:
        decide.refuse_mismatches(plan.mismatched)
    decide.refuse_over_budget(plan, wanted)

    offloaded = Offloaded(wanted.offload_folder)
    with _undone_on_failure(offloaded):
        initialise(skeleton, architecture, fresh=plan.fresh, unfilled=plan.shapes, dtype=plan.dtype)
        pump(plan, skeleton, offloaded)
        untied = finish(plan, skeleton.model, architecture, offloaded, wanted)

    report = LoadReport(plan, untied)
    report.log()
    return (skeleton.model, report.info()) if wanted.output_loading_info else skeleton.model


@contextmanager
def _collected_later() -> Iterator[None]:
    """A load makes many objects that stay; looking for garbage among them again and again is vain.

    In several threads the first to end is the one to switch the collection on again.
    """
    wanted = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if wanted:
            gc.enable()


@contextmanager
def _undone_on_failure(offloaded: Offloaded) -> Iterator[None]:
    """A load that failed has drawn no random numbers and written nothing (STA-2, OFF-9)."""
    before = torch.get_rng_state()
    try:
        yield
    except BaseException:
        torch.set_rng_state(before)
        offloaded.remove()
        raise


@dataclass(frozen=True)
class _Prepared:
    plan: LoadPlan
    skeleton: Skeleton
    architecture: Architecture


def _prepare(source: Source | None, model_args: tuple[Any, ...], options: Options) -> _Prepared:
    """Find, read the headers, build the empty model, decide."""
    options = replace(options, config=open_config(options))
    folder = _folder(source, options)
    architecture = choose(str(source), folder, model_args, options)
    if source is None or folder is None:
        checkpoint = of_state_dict()
    elif is_file(Path(source)):
        checkpoint = of_file(Path(source), "the file given")
    else:
        checkpoint = locate(folder, options, architecture.weights_name)
    inventory = decide.take_inventory(checkpoint, options)
    dtype = model_dtype(options.dtype, architecture.declared_dtype, decide.auto_order(inventory))
    architecture.set_dtype(dtype.dtype)
    skeleton = build(architecture.construct, dtype.dtype)
    plan = decide.make_plan(
        options=options,
        architecture=architecture,
        checkpoint=checkpoint,
        inventory=inventory,
        dtype=dtype,
        skeleton=skeleton,
    )
    return _Prepared(plan, skeleton, architecture)


def _folder(source: Source | None, options: Options) -> Path | None:
    """Where the checkpoint lies; None for a state dict, which needs a config (RES-10, RES-11)."""
    if (source is None) == (options.state_dict is None):
        raise BadOptions(
            "Exactly one of a source and a state dict is needed; "
            f"{'neither' if source is None else 'both'} was given.",
            "Give a folder, or `state_dict` together with `config`.",
        )
    if source is not None:
        return open_folder(source, options.subfolder, options)
    if options.config is None:
        raise BadOptions("`state_dict` needs `config`.", "Pass the config of the model.")
    return None
