"""The story of a load, top to bottom: prepare, decide, initialise, read, finish."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reference_loader.errors import BadOptions
from reference_loader.fill.finish import finish
from reference_loader.fill.offload import Offloaded
from reference_loader.fill.operations import convert
from reference_loader.fill.pump import pump
from reference_loader.fill.report import LoadReport, refuse_disagreements
from reference_loader.model.architecture import Architecture
from reference_loader.model.choose import choose
from reference_loader.model.initialise import initialise
from reference_loader.model.skeleton import Skeleton, build
from reference_loader.options import Options, Source
from reference_loader.plan import decide
from reference_loader.plan.devices import refuse_absent
from reference_loader.plan.dtypes import model_dtype
from reference_loader.plan.inventory import auto_order, bounds, take_inventory
from reference_loader.plan.plan import LoadPlan
from reference_loader.source.checkpoint import (
    locate,
    of_file,
    of_state_dict,
    open_config,
    open_folder,
)
from reference_loader.source.files import is_file
from reference_loader.speed import collection_deferred, context_made_early

Loaded = nn.Module | tuple[nn.Module, dict[str, Any]]


def load_model(source: Source | None, model_args: tuple[Any, ...], options: Options) -> Loaded:
    """The model, or the model and its loading info: what `from_pretrained` returns."""
    model, report = load(source, model_args, options)
    report.log()
    return (model, report.info()) if options.output_loading_info else model


@torch.inference_mode(mode=False)  # the caller's makes tensors that no gradient can pass (STA-4)
def load(
    source: Source | None,
    model_args: tuple[Any, ...],
    options: Options,
    *,
    called_by_class: bool = False,
) -> tuple[nn.Module, LoadReport]:
    """The model, and what was found.

    Args:
        source, model_args, options: see `from_pretrained`.
        called_by_class: whether the class's own `from_pretrained` may be the caller; else such a
            class is refused, since its own would do more.
    """
    with collection_deferred(), context_made_early(options.device_map):
        plan, skeleton, architecture = _prepare(source, model_args, options, called_by_class)
        if options.strict:
            refuse_disagreements(plan)
        if not options.ignore_mismatched_sizes:
            decide.refuse_mismatches(plan.mismatched)
        decide.refuse_over_budget(plan, options)
        refuse_absent(each.device for each in plan.filled)
        refuse_absent(each.device for each in plan.fresh.values())

        before, offloaded = torch.get_rng_state(), Offloaded(options.offload_folder)
        try:
            fresh = {name: each.dtype for name, each in plan.fresh.items()}
            initialise(skeleton, architecture, fresh=fresh, buffers=plan.buffers, dtype=plan.dtype)
            pump(plan, skeleton, offloaded)
            convert(plan, skeleton, offloaded)
            untied = finish(plan, skeleton.model, architecture, offloaded, options)
        except BaseException:
            # A load that failed has drawn no random numbers and written nothing (STA-2, OFF-9).
            if plan.fresh:  # else nothing was drawn, and another thread's numbers stay as they are
                torch.set_rng_state(before)
            offloaded.remove()
            raise

    return skeleton.model, LoadReport(plan, untied)


def plan_load(source: Source | None, model_args: tuple[Any, ...], options: Options) -> LoadPlan:
    """The decisions of the same load, without reading a weight: what `plan` returns."""
    with collection_deferred():
        return _prepare(source, model_args, options, called_by_class=False)[0]


def _prepare(
    source: Source | None, model_args: tuple[Any, ...], options: Options, called_by_class: bool
) -> tuple[LoadPlan, Skeleton, Architecture]:
    """Find the files, read their headers, build the empty model, decide.

    Raises:
        BadOptions: not exactly one of a source and a state dict, or a state dict and no config
            (RES-10, RES-11).
    """
    if not isinstance(source, str | PathLike | None):
        raise BadOptions(
            f"The source is a {type(source).__name__}, not a path.",
            "Pass a folder, a weight file or the id of a repository.",
        )
    options = replace(options, config=open_config(options))
    if (source is None) == (options.state_dict is None):
        raise BadOptions(
            "Pass exactly one of a source and `state_dict`; "
            f"{'neither' if source is None else 'both'} was given.",
            "Give a folder, or `state_dict` together with `config`.",
        )
    if source is None and options.config is None:
        raise BadOptions("`state_dict` needs `config`.", "Pass the config of the model.")

    folder = None if source is None else open_folder(source, options.subfolder, options)
    architecture = choose(
        *(str(source), folder, model_args, options), called_by_class=called_by_class
    )
    if source is None or folder is None:
        checkpoint = of_state_dict()
    elif is_file(Path(source)):
        checkpoint = of_file(Path(source), "the file given")
    else:
        checkpoint = locate(folder, options, architecture.weights_name)
    inventory = take_inventory(checkpoint, options)
    dtype = model_dtype(options.dtype, architecture.declared_dtype, auto_order(inventory))
    architecture.set_dtype(dtype.dtype)
    skeleton = build(architecture.construct, dtype.dtype, bounds=bounds(inventory))
    plan = decide.make_plan(
        options=options,
        architecture=architecture,
        checkpoint=checkpoint,
        inventory=inventory,
        dtype=dtype,
        skeleton=skeleton,
    )
    return plan, skeleton, architecture
