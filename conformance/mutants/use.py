"""Mutants of stage USE: what can be done with the model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from conformance.mutants.planting import Load, coming_out, going_in


def ordered(model: nn.Module, last: str) -> None:
    """Register a module of a decoder layer once more, which makes it the last one."""
    layer: Any = model
    modules = layer._modules
    modules[last] = modules.pop(last)


@coming_out("USE-1", "use/t5")
def gradient_scaled(load: Load) -> None:
    """The gradient of one matrix is doubled on its way."""
    weight = next(p for p in load.model.parameters() if p.ndim == 2)
    weight.register_hook(lambda gradient: 2 * gradient)


@coming_out("USE-1", "use/head-in-base")
def weight_frozen(load: Load) -> None:
    """One matrix takes no gradient."""
    load.base.layers[0].mlp.up_proj.weight.requires_grad_(False)


@coming_out("USE-2", "use/single")
def gradient_of_a_norm_lost(load: Load) -> None:
    """The gradient of a norm is zero."""
    load.base.norm.weight.register_hook(torch.zeros_like)


@coming_out("USE-2", "use/tied")
def gradient_of_the_head_lost(load: Load) -> None:
    """The head is cut off from the embedding that it is tied to: its share of the gradient is
    lost."""
    head = load.head
    held = head.weight.detach()
    head.forward = lambda states: nn.functional.linear(states, held)


@coming_out("USE-3", "use/single")
def gradient_there_already(load: Load) -> None:
    """A parameter has a gradient of zeros."""
    weight = load.base.norm.weight
    weight.grad = torch.zeros_like(weight)


@coming_out("USE-3", "use/sharded")
def gradients_there_already(load: Load) -> None:
    """The loader has made a backward pass of its own, and left every gradient."""
    for parameter in load.model.parameters():
        parameter.grad = torch.ones_like(parameter)


@coming_out("USE-4", "use/single")
def stepped_twice(load: Load) -> None:
    """Two parameters of one shape share their memory without being one."""
    layers = load.base.layers
    layers[1].mlp.up_proj.weight.data = layers[0].mlp.up_proj.weight.data


@coming_out("USE-4", "use/sharded")
def tie_by_storage_alone(load: Load) -> None:
    """A parameter has a second object in another module: a step moves its memory twice."""
    layers = load.base.layers
    layers[2].input_layernorm.weight = nn.Parameter(layers[1].input_layernorm.weight.data)


@coming_out("USE-5", "use/single")
def not_all_saved(load: Load) -> None:
    """The saved file lacks the last norm."""
    model, save = load.model, load.model.save_pretrained

    def in_part(folder: Any, **options: Any) -> Any:
        state = {n: t for n, t in model.state_dict().items() if not n.endswith("norm.weight")}
        return save(folder, state_dict=state, **options)

    model.save_pretrained = in_part


@coming_out("USE-5", "use/cast")
def saved_as_it_was_stored(load: Load) -> None:
    """The saved file has the dtype of the file that was loaded."""
    model, save = load.model, load.model.save_pretrained

    def as_stored(folder: Any, **options: Any) -> Any:
        state = {name: tensor.bfloat16() for name, tensor in model.state_dict().items()}
        return save(folder, state_dict=state, **options)

    model.save_pretrained = as_stored


@coming_out("USE-5", "use/single")
def saved_config_of_another(load: Load) -> None:
    """The config that is saved has another number of positions."""
    save = load.model.save_pretrained

    def otherwise(folder: Any, **options: Any) -> Any:
        save(folder, **options)
        config = copy.deepcopy(load.model.config)
        config.max_position_embeddings += 1
        config.save_pretrained(folder)

    load.model.save_pretrained = otherwise


@coming_out("USE-6", "use/single")
def save_in_place_skipped(load: Load) -> None:
    """A save into the folder of the checkpoint does nothing."""
    save, source = load.model.save_pretrained, str(load.source)

    def elsewhere(folder: Any, **options: Any) -> Any:
        return None if str(folder) == source else save(folder, **options)

    load.model.save_pretrained = elsewhere


@coming_out("USE-7", "use/tied")
def tie_lost_on_resizing(load: Load) -> None:
    """The model unties its head when its embeddings are resized."""
    resize = load.model.resize_token_embeddings

    def untied(size: int, **options: Any) -> Any:
        found = resize(size, **options)
        load.head.weight = nn.Parameter(load.head.weight.detach().clone())
        return found

    load.model.resize_token_embeddings = untied


@coming_out("USE-7", "use/single")
def rows_lost_on_resizing(load: Load) -> None:
    """Resizing the embeddings initialises the first row again."""
    resize = load.model.resize_token_embeddings

    def first_row_anew(size: int, **options: Any) -> Any:
        found = resize(size, **options)
        with torch.no_grad():
            load.base.embed_tokens.weight[0] = 0
        return found

    load.model.resize_token_embeddings = first_row_anew


@coming_out("USE-8", "use/single")
def copy_is_the_model(load: Load) -> None:
    """`copy.deepcopy` gives the model itself."""
    load.model.__dict__["__deepcopy__"] = lambda memo: load.model


@coming_out("USE-8", "use/sharded")
def copy_shares_a_weight(load: Load) -> None:
    """A parameter is shared with each copy of the model."""
    weight = load.base.norm.weight
    weight.__deepcopy__ = lambda memo: weight


@coming_out("USE-9", "use/single")
def unpicklable(load: Load) -> None:
    """The model holds a function that has no name, so that pickle fails."""
    load.model.loaded_by = lambda: None


@coming_out("USE-9", "use/cast")
def pickled_with_its_source(load: Load) -> None:
    """A parameter is a slice of memory that is much larger, which goes into the pickle."""
    weight = load.base.norm.weight
    large = torch.zeros(weight.numel() + 200_000, dtype=weight.dtype)
    large[: weight.numel()] = weight.data.flatten()
    weight.data = large[: weight.numel()].view_as(weight)


KEPT: dict[str, Any] = {}


def kept(what: Callable[[Load], Any]) -> Callable[[Load], Any]:
    """What the function returns of a load, and of each later load of the same source."""
    return lambda load: KEPT.setdefault(f"{what.__name__} {load.source}", what(load))


@coming_out("USE-10", "use/single")
def same_model_twice(load: Load) -> None:
    """A second load of a folder returns the model of the first."""
    load.result = kept(_result)(load)


def _result(load: Load) -> Any:
    """What the loader returns."""
    return load.result


@coming_out("USE-10", "use/cast")
def weight_of_the_first_load(load: Load) -> None:
    """The last norm is shared by all models that were loaded from the folder."""
    load.base.norm.weight = kept(_last_norm)(load)


def _last_norm(load: Load) -> Any:
    """The weight of the last norm."""
    return load.base.norm.weight


@coming_out("USE-10", "use/map")
def config_of_the_first_load(load: Load) -> None:
    """All models that were loaded from the folder have one config object."""
    held = kept(_config)(load)
    for module in load.model.modules():
        if "config" in vars(module):
            module.config = held


def _config(load: Load) -> Any:
    """The config of the model."""
    return load.model.config


@coming_out("USE-11", "use/single")
def norm_registered_last(load: Load) -> None:
    """The embedding is the last module of its parent."""
    ordered(load.base, "embed_tokens")


@coming_out("USE-11", "use/sharded")
def parameters_in_another_order(load: Load) -> None:
    """The projections of one layer are in the order of their names."""
    attention = load.base.layers[1].self_attn
    for name in sorted(n for n in attention._modules if n.endswith("_proj")):
        ordered(attention, name)


@coming_out("USE-12", "use/single")
def base_with_a_config_of_its_own(load: Load) -> None:
    """The base model has a copy of the config: what is set on one shows not on the other."""
    load.base.config = copy.deepcopy(load.base.config)


@coming_out("USE-12", "use/t5")
def decoder_with_the_config_of_the_model(load: Load) -> None:
    """The decoder has the config object of the model, not one of its own."""
    load.model.decoder.config = load.model.config


@coming_out("USE-13", "use/single")
def hook_on_the_forward(load: Load) -> None:
    """A layer has a forward hook that does nothing."""
    load.base.layers[0].register_forward_hook(_nothing)


@coming_out("USE-13", "use/sharded")
def hook_on_the_state_dict(load: Load) -> None:
    """The model has a hook on its state dict that does nothing."""
    load.model._register_state_dict_hook(_nothing)


@coming_out("USE-13", "use/cast")
def hook_on_a_parameter(load: Load) -> None:
    """A parameter has a hook on its accumulated gradient."""
    load.base.norm.weight.register_post_accumulate_grad_hook(_nothing)


def _nothing(*arguments: Any) -> None:
    """A hook that changes nothing."""


@coming_out("USE-14", "use/single")
def dropout_switched_on(load: Load) -> None:
    """An attention drops a tenth of its weights once the model is trained."""
    load.base.layers[0].self_attn.attention_dropout = 0.1


@coming_out("USE-14", "use/map")
def layer_of_another_number(load: Load) -> None:
    """The last layer has the number of the first, under which it keeps its cache."""
    load.base.layers[-1].self_attn.layer_idx = 0


@coming_out("USE-15", "use/single")
def checkpointing_left_on(load: Load) -> None:
    """Gradient checkpointing is on."""
    load.model.gradient_checkpointing_enable()


@coming_out("USE-16", "use/single")
def training_mode_ignored(load: Load) -> None:
    """A layer stays in evaluation mode, whatever the model is switched to."""
    layer = load.base.layers[0]
    layer.train = lambda mode=True: layer


@coming_out("USE-17", "use/single")
def cast_ignored(load: Load) -> None:
    """`to(dtype)` does not reach the last norm."""
    norm = load.base.norm
    norm._apply = lambda *arguments, **options: norm


@going_in("USE-18", "use/disk-saved")
def saved_from_memory_alone(load: Load) -> None:
    """Nothing is offloaded: the map is ignored, and what is saved lacks what lies on disk."""
    load.options.pop("device_map")
    load.options.pop("offload_folder")
