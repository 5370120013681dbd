"""Mutants of stage SAV: what is written of a loaded model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from conformance.mutants.planting import Act, Load, Mutant, coming_out

Tensors = dict[str, torch.Tensor]


def in_the_file(clause: str, case: str) -> Callable[[Callable[[Tensors], None]], Mutant]:
    """Stock, and what the function does to the tensors of each file that the model saves."""

    def planted(damage: Callable[[Tensors], None]) -> Mutant:
        def act(load: Load) -> None:
            save = load.model.save_pretrained

            def damaged(folder: Any, **options: Any) -> None:
                save(folder, **options)
                for path in Path(folder).glob("*.safetensors"):
                    tensors = load_file(path)
                    damage(tensors)
                    held = {name: tensor.clone() for name, tensor in tensors.items()}
                    save_file(held, path, metadata={"format": "pt"})

            load.model.save_pretrained = damaged

        act.__name__, act.__doc__ = damage.__name__, damage.__doc__
        renamed: Act = act
        return coming_out(clause, case)(renamed)

    return planted


@coming_out("SAV-1", "sav/mixtral")
def saved_in_the_layout_of_the_model(load: Load) -> None:
    """The experts of a layer are saved as the one tensor that the model holds."""
    save = load.model.save_pretrained

    def merged(folder: Any, **options: Any) -> None:
        save(folder, **options, save_original_format=False)

    load.model.save_pretrained = merged


@coming_out("SAV-1", "sav/key-mapping")
def mapping_forgotten(load: Load) -> None:
    """The model is saved under its own names, and not those of the checkpoint."""
    load.model._weight_conversions = []


@in_the_file("SAV-1", "sav/head-in-base")
def name_left_over(tensors: Tensors) -> None:
    """The file holds a tensor that is none of the model's."""
    tensors["model.rotary_emb.inv_freq"] = torch.ones(4)


@in_the_file("SAV-2", "sav/mixtral")
def saved_experts_by_name(tensors: Tensors) -> None:
    """The experts are saved in the order of their names: expert 10 comes after expert 1."""
    before = {key: tensor for key, tensor in tensors.items() if ".w2." in key}
    numbered = sorted(before, key=lambda key: int(key.split(".experts.")[1].split(".")[0]))
    tensors.update(zip(numbered, (before[key] for key in sorted(before)), strict=True))


@in_the_file("SAV-2", "sav/mixtral-cast")
def saved_expert_transposed(tensors: Tensors) -> None:
    """The matrices of the experts are saved transposed, in the shape that they had."""
    for key in [key for key in tensors if ".experts." in key]:
        tensors[key] = tensors[key].T.reshape(tensors[key].shape)


@in_the_file("SAV-2", "sav/cast")
def saved_dtype_of_the_file(tensors: Tensors) -> None:
    """The tensors are saved in the dtype of the file that was loaded."""
    tensors.update({key: tensor.bfloat16() for key, tensor in tensors.items()})


@in_the_file("SAV-2", "sav/mismatched")
def initialised_values_lost(tensors: Tensors) -> None:
    """What the load initialised is saved as zeros."""
    tensors["model.embed_tokens.weight"].zero_()


@in_the_file("SAV-3", "sav/tied")
def tied_weight_saved_twice(tensors: Tensors) -> None:
    """Both names of a tied weight are saved."""
    for key in [key for key in tensors if key == "model.embed_tokens.weight"]:
        tensors["lm_head.weight"] = tensors[key]


@in_the_file("SAV-3", "sav/tied-equal")
def tied_weight_left_out(tensors: Tensors) -> None:
    """No name of a tied weight is saved."""
    for key in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors.pop(key, None)


@coming_out("SAV-4", "sav/as-stored")
def half_an_index(load: Load) -> None:
    """The index names the tensors of the first half of the shards only."""
    save = load.model.save_pretrained

    def halved(folder: Any, **options: Any) -> None:
        save(folder, **options)
        for path in Path(folder).glob("*.index.json"):
            index = json.loads(path.read_text("utf-8"))
            kept = sorted(index["weight_map"])[: len(index["weight_map"]) // 2]
            index["weight_map"] = {key: index["weight_map"][key] for key in kept}
            path.write_text(json.dumps(index), "utf-8")

    load.model.save_pretrained = halved


@in_the_file("SAV-5", "sav/base-in-head")
def norm_not_saved(tensors: Tensors) -> None:
    """The last norm is not saved: a load of the file initialises it."""
    tensors.pop("model.norm.weight", None)


@coming_out("SAV-6", "sav/cast")
def saved_config_of_the_source(load: Load) -> None:
    """The config is saved with the dtype that the checkpoint had."""
    save = load.model.save_pretrained

    def as_before(folder: Any, **options: Any) -> None:
        save(folder, **options)
        path = Path(folder) / "config.json"
        config = json.loads(path.read_text("utf-8")) | {"dtype": "bfloat16"}
        path.write_text(json.dumps(config), "utf-8")

    load.model.save_pretrained = as_before


@in_the_file("SAV-7", "sav/disk")
def offloaded_weights_not_saved(tensors: Tensors) -> None:
    """What lies on disk is not saved."""
    for key in [key for key in tensors if key.startswith("model.layers.1.")]:
        del tensors[key]
