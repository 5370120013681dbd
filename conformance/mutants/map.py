"""Mutants of stage MAP: key names."""

from __future__ import annotations

import torch
from torch import nn

from conformance.mutants.planting import Load, coming_out, going_in, ignoring

key_mapping_ignored = ignoring("key_mapping", "MAP-6", "map/key-mapping")


@coming_out("MAP-1", "res/single")
def swapped_projections(load: Load) -> None:
    """The first layer's gate and up projections are exchanged."""
    mlp = load.base.layers[0].mlp
    mlp.gate_proj.weight, mlp.up_proj.weight = mlp.up_proj.weight, mlp.gate_proj.weight


@coming_out("MAP-1", "res/single")
def one_ulp_off(load: Load) -> None:
    """One element of the final norm is the next number up."""
    weight = load.base.norm.weight
    weight[0] = torch.nextafter(weight[0], torch.tensor(torch.inf, dtype=weight.dtype))


@coming_out("MAP-1", "idx/3-shards")
def stale_layer(load: Load) -> None:
    """The last layer's norm still holds what the one before it holds."""
    before, last = load.base.layers[-2:]
    last.input_layernorm.weight.copy_(before.input_layernorm.weight)


@coming_out("MAP-1", "res/single")
def weight_as_buffer(load: Load) -> None:
    """The weight of the final norm is a buffer."""
    norm, weight = load.base.norm, load.base.norm.weight
    del norm.weight
    norm.register_buffer("weight", weight.data)


@coming_out("MAP-1", "res/single")
def buffer_for_the_file(load: Load) -> None:
    """A buffer that no file shall hold is in the state dict."""
    rotary = load.base.rotary_emb
    rotary.register_buffer("inv_freq", rotary.inv_freq, persistent=True)


@going_in("MAP-2", "map/base-from-head")
def base_prefix_not_understood(load: Load) -> None:
    """The weights of a head checkpoint are looked for under names that it does not have."""
    load.options["key_mapping"] = {r"^model\.layers": "other"}


@going_in("MAP-6", "map/key-mapping-in-turn")
def first_rule_only(load: Load) -> None:
    """Of several renames only the first is done."""
    if load.options.get("key_mapping"):
        load.options["key_mapping"] = dict(list(load.options["key_mapping"].items())[:1])


@coming_out("MAP-8", "map/gamma-and-beta")
def old_names_not_understood(load: Load) -> None:
    """A `LayerNorm` has the values of its constructor."""
    for module in load.model.modules():
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()


@coming_out("MAP-9", "map/extra-state")
def extra_state_lost(load: Load) -> None:
    """Extra state is that of the constructor."""
    for module in load.model.modules():
        if hasattr(module, "state"):
            module.state = torch.ones(2)


@coming_out("MAP-11", "map/ignored-missing")
def ignored_keys_told(load: Load) -> None:
    """The head is reported missing, whatever the class wants to hear."""
    if load.info and hasattr(load.model, "lm_head"):
        load.info["missing_keys"].add("lm_head.weight")
