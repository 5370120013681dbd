"""What can be done with a model after the load, as pairs of facts: what must be, and what is.

An experiment belongs to a clause and runs in the cases that cite it. It gets a model of its own,
loaded once more from a copy of the checkpoint, so that whatever it does to the model shows nowhere
else, also where the loader lets a parameter write into its file. Most hold the model against
itself, before and after; two hold it against one that its constructor made.
"""

from __future__ import annotations

import copy
import json
import pickle
import tempfile
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from conformance.cases.case import Case
from conformance.observe import held_memory, saving
from conformance.observe.baseline import PLACING
from conformance.observe.experiment import Pairs, Usage, copy_of, facts_of, paired, tensors_of
from conformance.observe.facts import observe_tensors
from conformance.observe.model_parts import attributes, config_owners, hooks, names_in_order
from conformance.results.fingerprint import fingerprints

# Fields of a config that say where and by what a model was saved.
OF_THE_SAVE = ("_name_or_path", "transformers_version", "_attn_implementation_autoset")


def observe_usage(case: Case, source: Path, again: Callable[..., Any]) -> dict[str, Pairs]:
    """Clause to what its experiment found; an error is a fact, too.

    Args:
        case: what is loaded; its clauses say which experiments are made.
        source: the folder of the checkpoint.
        again: see `Usage`.
    """
    found: dict[str, Pairs] = {}
    if clauses := set(case.clauses) & SAVING:
        with tempfile.TemporaryDirectory(prefix="conformance-used-") as place:
            usage = Usage(case, copy_of(source, Path(place)), again)
            found |= saving.observe_saving(usage, clauses)
    for clause in case.clauses:
        if clause not in EXPERIMENTS:
            continue
        with tempfile.TemporaryDirectory(prefix="conformance-used-") as place:
            usage = Usage(case, copy_of(source, Path(place)), again)
            try:
                found[clause] = EXPERIMENTS[clause](usage)
            except Exception as error:
                found[clause] = {"(error)": ("none", f"{type(error).__name__}: {error}")}
    return found


def untouched(usage: Usage) -> Pairs:
    """Every parameter is a leaf without a gradient, and no gradient is recorded yet."""
    pairs: Pairs = {}
    for name, tensor in usage.model().named_parameters():
        told = [
            *(["a gradient"] if tensor.grad is not None else []),
            *(["no leaf"] if not tensor.is_leaf else []),
            *(["an inference tensor"] if tensor.is_inference() else []),
        ]
        pairs[name] = ("a leaf without a gradient", ", ".join(told) or "a leaf without a gradient")
    return pairs


def one_step(usage: Usage) -> Pairs:
    """A step of an optimiser moves each trainable parameter once, and nothing else."""
    model = usage.model()
    tensors = tensors_of(model)
    # What the step must make of each; a tied parameter is moved once, whatever its names.
    moved = {id(p) for p in model.parameters() if p.requires_grad}
    with torch.no_grad():
        wanted = {n: t.add(-0.5) if id(t) in moved else t.clone() for n, t in tensors.items()}
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5).step()
    return paired(fingerprints(wanted), fingerprints(tensors_of(model)))


def saved_and_loaded(usage: Usage) -> Pairs:
    """The model is saved, and loaded again: the same tensors, ties, config and generation config;
    the file holds what the state dict holds."""
    model = usage.model()
    # What is on disk is compared as it is in memory.
    before = observe_tensors(usage.model(without=PLACING))
    with tempfile.TemporaryDirectory(prefix="conformance-saved-") as folder:
        model.save_pretrained(folder)
        stored = fingerprints(_stored(Path(folder)))
        # Of names that are tied the file holds one.
        held = {before[name]["storage"] for name in stored if name in before}
        states = {name for name in model.state_dict() if before[name]["storage"] not in held}
        loaded = usage.model(Path(folder), **_as_saved(model))
        pairs = paired(facts_of(before), facts_of(observe_tensors(loaded)))
    pairs["(not in the file)"] = ([], sorted(states))
    for name, digest in stored.items():
        pairs[f"{name} in the file"] = (before.get(name, {}).get("fingerprint", "absent"), digest)
    return pairs | _config_pairs(model, loaded)


def _as_saved(model: Any) -> dict[str, Any]:
    """Options of the second load: class and dtype of the model, no place, nothing of the folder."""
    # By the old name, which every release knows; with "auto" a release before 4.56 obeys a field
    # of the config that it does not write itself.
    without = (*PLACING, "state_dict", "config", "dtype")
    return {"without": without, "model_class": type(model), "torch_dtype": model.dtype}


def _config_pairs(left: Any, right: Any) -> Pairs:
    """The configs of two models that must be alike, field by field."""
    pairs: Pairs = {}
    for told, each in (("config", "config"), ("generation config", "generation_config")):
        before, after = (_fields_of(getattr(model, each, None)) for model in (left, right))
        pairs |= {f"{told}: {name}": pair for name, pair in paired(before, after).items()}
    return pairs


def _fields_of(config: Any) -> dict[str, str]:
    """The fields of a config as text, but those that say where it was saved."""
    fields = {} if config is None else config.to_dict()
    kept = {name: value for name, value in fields.items() if name not in OF_THE_SAVE}
    return {n: json.dumps(value, sort_keys=True, default=str) for n, value in kept.items()}


def _stored(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor in the safetensors files of a folder just saved."""
    files = saving.tensors_in(folder).values()
    return {name: tensor for tensors in files for name, tensor in tensors.items()}


def saved_over_its_source(usage: Usage) -> Pairs:
    """The model is saved into the folder that it was loaded from; it may be a view of its files."""
    model = usage.model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    before = facts_of(observe_tensors(model))
    model.save_pretrained(usage.source)
    after = facts_of(observe_tensors(model))
    loaded = usage.model(**_as_saved(model))
    again = facts_of(observe_tensors(loaded))
    pairs = paired(before, after)
    return pairs | {f"{name}, loaded": pair for name, pair in paired(before, again).items()}


def resized(usage: Usage) -> Pairs:
    """The embeddings get eight rows more; the rows that were there stay, the tie stays."""
    model = usage.model()
    width = model.get_input_embeddings().weight.shape[0]
    layers = _embeddings(model)
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    tied = len({id(layer.weight) for layer in layers.values()})
    kept = facts_of(observe_tensors(model))
    trained = {name: layer.weight.requires_grad for name, layer in layers.items()}
    own = {id(layer.weight) for layer in layers.values()}
    others = {n for n, t in tensors_of(model).items() if id(t) not in own}
    model.resize_token_embeddings(width + 8)
    layers = _embeddings(model)
    after = {name: layer.weight.detach()[:width] for name, layer in layers.items()}
    pairs = paired(fingerprints(before), fingerprints(after))
    now = facts_of(observe_tensors(model))
    pairs |= {name: (kept[name], now.get(name, "absent")) for name in others}
    pairs["tied"] = (tied, len({id(layer.weight) for layer in layers.values()}))
    pairs["vocab_size"] = (width + 8, model.config.get_text_config().vocab_size)
    for name, layer in layers.items():
        pairs[f"rows of {name}"] = (width + 8, layer.weight.shape[0])
        pairs[f"{name} takes a gradient"] = (trained[name], layer.weight.requires_grad)
        pairs[f"NaN in {name}"] = (False, bool(layer.weight.isnan().any()))
    return pairs


def _embeddings(model: Any) -> dict[str, Any]:
    """The embedding, and the head if the model has one."""
    found = {"embedding": model.get_input_embeddings(), "head": model.get_output_embeddings()}
    return {name: layer for name, layer in found.items() if layer is not None}


def copied(usage: Usage) -> Pairs:
    """`copy.deepcopy` gives an equal model that shares nothing with the first."""
    model = usage.model()
    return _twins(model, copy.deepcopy(model))


def pickled(usage: Usage) -> Pairs:
    """A model that went through pickle is equal, and the pickle holds the weights once."""
    model = usage.model()
    text = pickle.dumps(model)
    pairs = _twins(model, pickle.loads(text))
    storages = {t.untyped_storage().data_ptr(): t.nbytes for t in tensors_of(model).values()}
    size = sum(storages.values())
    pairs["(size)"] = (True, len(text) <= size + 65_536 + 2_048 * len(tensors_of(model)))
    return pairs


def _twins(model: Any, other: Any) -> Pairs:
    """Two models are equal, and what is done to the second does not change the first."""
    before = facts_of(observe_tensors(model))
    pairs = paired(before, facts_of(observe_tensors(other))) | _config_pairs(model, other)
    pairs["(class)"] = (type(model).__name__, type(other).__name__)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
        for buffer in other.buffers():
            buffer.zero_()
    after = facts_of(observe_tensors(model))
    shared = [name for name in before if before[name] != after[name]]
    pairs["(shared)"] = ([], shared)
    pairs["(config shared)"] = (False, model.config is other.config)
    return pairs


def two_loads(usage: Usage) -> Pairs:
    """Two loads share neither tensors nor a config, and both are alike."""
    return _twins(usage.model(), usage.model())


def in_order(usage: Usage) -> Pairs:
    """Parameters, buffers, modules and the state dict are in the order of the constructor."""
    model = usage.model()
    built, loaded = names_in_order(_constructed(model)), names_in_order(model)
    return {kind: _first_difference(built[kind], loaded[kind]) for kind in built}


def _first_difference(expected: list[str], actual: list[str]) -> tuple[str, str]:
    """The names at the first place in which two orders differ; twice the same if none does."""
    for place, (left, right) in enumerate(zip_longest(expected, actual, fillvalue="no name")):
        if left != right:
            return f"{left}, number {place + 1}", f"{right}, number {place + 1}"
    return "in order", "in order"


def config_objects(usage: Usage) -> Pairs:
    """The modules that share one config object are those that share it in the constructor's model,
    and no two modules have the same generation config."""
    model = usage.model()
    return paired(config_owners(_constructed(model)), config_owners(model))


def no_hooks(usage: Usage) -> Pairs:
    """Modules and parameters have the hooks of the constructor's model, and no others."""
    model = usage.model()
    return paired(hooks(_constructed(model)), hooks(model))


def own_attributes(usage: Usage) -> Pairs:
    """Every module has the plain attributes that its constructor sets."""
    model = usage.model()
    return paired(attributes(_constructed(model)), attributes(model))


def checkpointing_off(usage: Usage) -> Pairs:
    """Gradient checkpointing is off, and can be switched on and off again."""
    model = usage.model()
    pairs: Pairs = {"after the load": (False, model.is_gradient_checkpointing)}
    model.gradient_checkpointing_enable()
    pairs["switched on"] = (True, model.is_gradient_checkpointing)
    model.gradient_checkpointing_disable()
    pairs["switched off"] = (False, model.is_gradient_checkpointing)
    return pairs


def modes(usage: Usage) -> Pairs:
    """`train()` and `eval()` reach every module."""
    model = usage.model()
    pairs: Pairs = {}
    for told, switch in (("train", model.train), ("eval", model.eval)):
        switch()
        for name, module in model.named_modules():
            pairs[f"{told}: {name or '(model)'}"] = (told == "train", module.training)
    return pairs


def cast_afterwards(usage: Usage) -> Pairs:
    """`to(dtype)` casts each floating tensor once, and ties stay."""
    pairs: Pairs = {}
    for dtype in (torch.float64, torch.bfloat16):
        model = usage.model()
        tensors = tensors_of(model)
        ties = {name: facts["storage"] for name, facts in observe_tensors(model).items()}
        wanted = {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}
        # The buffers of a rotary embedding stay what they are in releases that protect them.
        digests = fingerprints({name: tensor.detach() for name, tensor in wanted.items()})
        model.to(dtype)
        for name, facts in observe_tensors(model).items():
            expected = f"{wanted[name].dtype} {digests[name]} {ties[name]}"
            found = f"{facts['dtype']} {facts['fingerprint']} {facts['storage']}"
            pairs[f"{name} to {dtype}"] = (expected, found)
    return pairs


def _constructed(model: Any) -> Any:
    """A model of the same class and config that its constructor makes; draws no random number."""
    with torch.random.fork_rng(devices=[]):
        return type(model)(copy.deepcopy(model.config))


# Clauses whose experiments look at one saved model, see `saving`.
SAVING = {*saving.WHOLE, *saving.IN_SHARDS}

EXPERIMENTS: dict[str, Callable[[Usage], Pairs]] = {
    "USE-3": untouched,
    "USE-4": one_step,
    "USE-5": saved_and_loaded,
    "USE-6": saved_over_its_source,
    "USE-7": resized,
    "USE-8": copied,
    "USE-9": pickled,
    "USE-10": two_loads,
    "USE-11": in_order,
    "USE-12": config_objects,
    "USE-13": no_hooks,
    "USE-14": own_attributes,
    "USE-15": checkpointing_off,
    "USE-16": modes,
    "USE-17": cast_afterwards,
    "USE-18": saved_and_loaded,
    "MEM-4": held_memory.gone,
    "MEM-5": held_memory.files_unwritten,
    "MEM-6": held_memory.files_replaced,
    "MEM-7": held_memory.files_truncated,
}
