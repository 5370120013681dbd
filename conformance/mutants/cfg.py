"""Mutants of stage CFG: config."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoModel, AutoModelForCausalLM, GenerationConfig

from conformance.mutants.planting import Load, around, coming_out, going_in, ignoring
from conformance.observe.loaders import named_class, reference
from reference_loader.options import Options

attn_implementation_ignored = ignoring("attn_implementation", "CFG-9", "cfg/attention-eager")
config_ignored = ignoring("config", "CFG-21", "cfg/path")


@coming_out("CFG-1", "cfg/rope-base-old")
def old_theta_not_understood(load: Load) -> None:
    """The rotary frequencies are those of the default `rope_theta`."""
    frequencies = load.base.rotary_emb.inv_freq
    exponents = torch.arange(len(frequencies), dtype=torch.float32) / len(frequencies)
    frequencies.copy_(10_000.0**-exponents)


@coming_out("CFG-2", "cfg/object")
def passed_config_changed(load: Load) -> None:
    """The config object of the caller is written to."""
    if hasattr(load.options.get("config"), "use_cache"):
        load.options["config"].use_cache = False


@going_in("CFG-3", "cfg/override")
def overrides_ignored(load: Load) -> None:
    """Keyword arguments that are no options of the load are ignored."""
    _without_overrides(load)


@around("CFG-16", "cfg/unknown-keyword")
def unknown_keyword_swallowed(load: Load) -> Iterator[None]:
    """A keyword argument that nobody takes is dropped."""
    try:
        yield
    except TypeError:
        _without_overrides(load)
        load.result = load.run()


@coming_out("CFG-4", "cfg/generation")
def generation_config_forgotten(load: Load) -> None:
    """The generation config is the class's default."""
    if getattr(load.model, "generation_config", None) is not None:
        load.model.generation_config = type(load.model.generation_config)()


@coming_out("CFG-24", "cfg/generation-above-subfolder", of=reference)
def generation_config_of_the_root(load: Load) -> None:
    """The generation config is that of the source, whatever `subfolder` says."""
    if load.options.get("subfolder"):
        load.model.generation_config = GenerationConfig.from_pretrained(load.source)


@going_in("CFG-5", "cfg/auto-class")
def head_left_out_by_auto_class(load: Load) -> None:
    """An Auto class gives the base model."""
    if load.model_class is AutoModelForCausalLM:
        load.model_class = AutoModel


@coming_out("CFG-8", "cfg/name-and-dtype")
def source_forgotten(load: Load) -> None:
    """The config does not say where the model is from."""
    load.model.config.name_or_path = ""


@going_in("CFG-13", "cfg/other-architectures-explicit")
def architectures_decide(load: Load) -> None:
    """The class that the config names is taken instead of the one that is given."""
    load.model_class, _ = named_class(load.source)


@going_in("CFG-15", "cfg/generation-not-json-base")
def generation_config_always_read(load: Load) -> None:
    """A broken generation config is refused also where nothing is generated."""
    path = Path(load.source, "generation_config.json")
    if path.is_file():
        json.loads(path.read_text("utf-8"))


def _without_overrides(load: Load) -> None:
    for name in Options.of(load.options).overrides:
        del load.options[name]
