"""`from_pretrained` and `plan`: the story."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from reference_loader.errors import BadOptions
from reference_loader.fill.finish import finish
from reference_loader.fill.offload import Offloaded
from reference_loader.fill.pump import pump
from reference_loader.model.architecture import Architecture
from reference_loader.model.choose import choose
from reference_loader.model.initialise import initialise
from reference_loader.model.skeleton import Skeleton, build
from reference_loader.options import Options, documented
from reference_loader.plan import decide
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
from reference_loader.speed import collection_deferred, context_made_early

Source = str | PathLike[str]


@documented
@torch.inference_mode(mode=False)  # the caller's makes tensors that no gradient can pass (STA-4)
def from_pretrained(source: Source | None, *model_args: Any, **options: Any) -> Any:
    """Load a checkpoint into a model.

    Args:
        source: the folder with `config.json` and the weights, or one weight file, or the id of a
            repository on the Hub; None with `state_dict` and `config`.
        model_args: passed to the model class after its config.
        options: see `reference_loader.options.Options`; what is no option overrides the config's
            field of that name, or else goes to the model class (CFG-3).

    Returns:
        The model, in evaluation mode; with `output_loading_info` a pair of it and the loading
        info.

    Raises:
        LoadError: see `reference_loader.errors`; each is also the builtin exception that stock
            documents.
    """
    return _load(source, model_args, Options.of(options))


@documented
def plan(source: Source | None, *model_args: Any, **options: Any) -> LoadPlan:
    """Decide everything and read no weight; of a repository, the files are downloaded first.

    Same arguments and same errors as `from_pretrained`, but for tensors of a wrong shape, devices
    over their budget, and what `strict` objects to: a plan lists them.
    """
    with collection_deferred():
        return _prepare(source, model_args, Options.of(options))[0]


def _load(source: Source | None, model_args: tuple[Any, ...], wanted: Options) -> Any:
    with collection_deferred(), context_made_early(wanted.device_map):
        plan, skeleton, architecture = _prepare(source, model_args, wanted)
        if wanted.strict:
            refuse_disagreements(plan)
        if not wanted.ignore_mismatched_sizes:
            decide.refuse_mismatches(plan.mismatched)
        decide.refuse_over_budget(plan, wanted)

        before, offloaded = torch.get_rng_state(), Offloaded(wanted.offload_folder)
        try:
            fresh = {name: each.dtype for name, each in plan.fresh.items()}
            initialise(skeleton, architecture, fresh=fresh, buffers=plan.buffers, dtype=plan.dtype)
            pump(plan, skeleton, offloaded)
            untied = finish(plan, skeleton.model, architecture, offloaded, wanted)
        except BaseException:
            # A load that failed has drawn no random numbers and written nothing (STA-2, OFF-9).
            torch.set_rng_state(before)
            offloaded.remove()
            raise

    report = LoadReport(plan, untied)
    report.log()
    return (skeleton.model, report.info()) if wanted.output_loading_info else skeleton.model


def _prepare(
    source: Source | None, model_args: tuple[Any, ...], options: Options
) -> tuple[LoadPlan, Skeleton, Architecture]:
    """Find the files, read their headers, build the empty model, decide.

    Raises:
        BadOptions: not exactly one of a source and a state dict, or a state dict and no config
            (RES-10, RES-11).
    """
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
    return plan, skeleton, architecture
