"""Mutants of stage MIS: missing and mismatched weights."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy
import torch

from conformance.mutants.planting import Load, coming_out, going_in, ignoring
from conformance.observe.loaders import reference

# The parts of a weight as GPTQ stores it.
GPTQ = ("qweight", "qzeros", "scales")

ignore_mismatched_sizes_ignored = ignoring(
    "ignore_mismatched_sizes", "MIS-5", "mis/wrong-shape-tolerated"
)


@coming_out("MIS-1", "mis/head-f32")
def missing_zeroed(load: Load) -> None:
    """What was missing is zero."""
    for weight in _missing(load):
        weight.zero_()


@coming_out("MIS-1", "mis/head-f32")
def missing_uniform(load: Load) -> None:
    """What was missing has the declared deviation and is drawn from another distribution."""
    for weight in _missing(load):
        bound = 3**0.5 * load.model.config.initializer_range
        weight.uniform_(-bound, bound)


@coming_out("MIS-1", "mis/head-bf16-2")
def missing_narrow_in_half_precision(load: Load) -> None:
    """What was missing has half the declared deviation where it is not float32."""
    for weight in _missing(load):
        if weight.dtype != torch.float32:
            weight.div_(2)


@coming_out("MIS-2", "mis/head-f32")
def missing_drawn_apart(load: Load) -> None:
    """What was missing is drawn from a generator that no seed moves."""
    for weight in _missing(load):
        apart = torch.Generator().manual_seed(0)
        weight.normal_(0.0, load.model.config.initializer_range, generator=apart)


@coming_out("MIS-3", "mis/generator")
def generator_moved(load: Load) -> None:
    """A random number is drawn."""
    torch.rand(1)


@coming_out("MIS-3", "mis/generator")
def python_generator_moved(load: Load) -> None:
    """A random number is drawn from Python's generator."""
    random.random()


@coming_out("MIS-3", "mis/generator")
def numpy_generator_moved(load: Load) -> None:
    """A random number is drawn from numpy's generator."""
    numpy.random.rand()


@going_in("MIS-4", "mis/wrong-shape")
def mismatches_always_tolerated(load: Load) -> None:
    """A tensor of the wrong shape is passed over though nobody asked for that."""
    load.options["ignore_mismatched_sizes"] = True


@going_in("MIS-7", "mis/gptq-without-config", of=reference)
def quantised_parts_passed_over(load: Load) -> None:
    """The parts of a quantised weight are left out, and the weight is random."""
    whole = {key: tensor for key, tensor in load.stored.items() if not key.endswith(GPTQ)}
    config = load.model_class.config_class.from_pretrained(load.source)
    load.source, load.options = None, {**load.options, "config": config, "state_dict": whole}


@going_in("MIS-7", "mis/scale-left-over")
def whole_weight_beside_a_scale_refused(load: Load) -> None:
    """A weight is refused for the scale beside it, although it is stored whole."""
    if any(key.endswith("_scale_inv") for key in load.stored):
        raise ValueError("The checkpoint is quantised.")


@coming_out("MIS-6", "mis/inner-weight")
def loaded_weight_initialised(load: Load) -> None:
    """Where something is missing, the embedding is initialised too."""
    if load.info.get("missing_keys"):
        load.base.embed_tokens.weight.normal_(0.0, load.model.config.initializer_range)


def _missing(load: Load) -> Iterator[torch.Tensor]:
    """The matrices that were missing."""
    for name, parameter in load.model.named_parameters():
        if name in load.info.get("missing_keys", ()) and parameter.ndim == 2:
            yield parameter
