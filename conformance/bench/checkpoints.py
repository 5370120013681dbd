"""The checkpoints that are loaded for the clock: random weights, written once and kept."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from conformance_fixtures import llama2_7b as fixture
from conformance_fixtures.cache import cache_root
from conformance_fixtures.files import byte_size, write_index, write_json, write_safetensors
from conformance_fixtures.write import materialise
from reference_loader.options import Options
from reference_loader.source.checkpoint import open_folder

# To be raised whenever a checkpoint of the same name would hold something else.
WRITER_VERSION = 1

SHARDS = 4

# The variable that names the real Llama-2-7B where somebody has it, and the word for the other.
REAL_LLAMA2_7B, SYNTHETIC = "LLAMA2_7B", "synthetic"

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Weights:
    """What is written: random values for the model that the config describes.

    Without a config `name` is that of a recipe of the fixtures, or of `LLAMA2_7B`.
    """

    name: str
    dtype: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)


LLAMA2_7B = Weights("llama-2-7b", "float16")


def llama(layers: int, dtype: str) -> Weights:
    """A Llama to load for the clock: 25 million parameters a layer, 98 in embedding and head."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": dtype,
        "vocab_size": 32000,
        "hidden_size": 1536,
        "intermediate_size": 4096,
        "num_hidden_layers": layers,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": False,
    }
    return Weights(f"llama-{layers}-{dtype}", dtype, config)


def mixtral(layers: int, dtype: str) -> Weights:
    """Experts to merge for the clock: 44 million parameters a layer in eight, each by itself."""
    config = {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "dtype": dtype,
        "vocab_size": 8000,
        "hidden_size": 1024,
        "intermediate_size": 1792,
        "num_hidden_layers": layers,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    }
    return Weights(f"mixtral-{layers}-{dtype}", dtype, config)


def many_small(pairs: int) -> Weights:
    """A checkpoint to load for the clock: pairs of a weight of 64 elements and a bias of 8."""
    config = {
        "architectures": ["ManySmall"],
        "model_type": "many-small",
        "dtype": "float32",
        "pairs": pairs,
    }
    return Weights(f"small-{pairs}", "float32", config)


def written(weights: Weights) -> Path:
    """The folder of the benchmark's checkpoint; it is written if it is not there yet."""
    if weights == LLAMA2_7B:
        return llama2_7b(os.environ.get(REAL_LLAMA2_7B, ""))
    if not weights.config:
        return materialise(weights.name)
    folder = cache_root() / "bench" / f"{weights.name}-{WRITER_VERSION}"
    if not folder.is_dir():
        partial = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
        partial.mkdir(parents=True)
        _write(weights, partial)
        partial.rename(folder)
    return folder


def llama2_7b(given: str) -> Path:
    """The folder of Llama-2-7B to bench: a path or an id, else one of the same geometry."""
    if given not in ("", SYNTHETIC):
        return open_folder(given, subfolder="", options=Options())
    return fixture.written(fixture.default_folder())


def size_of(folder: Path) -> int:
    """Bytes of all weight files of a benchmark's checkpoint."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _write(weights: Weights, folder: Path) -> None:
    """Write a benchmark's checkpoint: random weights in shards, an index, a config."""
    write_json(folder / "config.json", dict(weights.config))
    shapes, dtype = _shapes(weights.config), getattr(torch, weights.dtype)
    shard_of, total = {}, 0
    generator = torch.Generator().manual_seed(0)
    for number, names in enumerate(_shards(shapes), start=1):
        shard = f"model-{number:05}-of-{SHARDS:05}.safetensors"
        tensors = {
            name: (torch.randn(shapes[name], generator=generator) / 50).to(dtype) for name in names
        }
        write_safetensors(folder / shard, tensors)
        shard_of.update(dict.fromkeys(names, shard))
        total += sum(map(byte_size, tensors.values()))
    write_index(folder / "model.safetensors.index.json", shard_of, total)


def _shapes(config: Mapping[str, Any]) -> Shapes:
    """A benchmark checkpoint's keys, by our own classes, so that no release decides them."""
    if config["model_type"] == "llama":
        from reference_loader.llama import Llama

        with torch.device("meta"):
            state = Llama.from_config(config).state_dict()
        return {name: tuple(tensor.shape) for name, tensor in state.items()}
    if config["model_type"] == "mixtral":
        return _mixtral_shapes(config)
    return {
        f"layers.{number}.{leaf}": shape
        for number in range(config["pairs"])
        for leaf, shape in (("weight", (8, 8)), ("bias", (8,)))
    }


def _mixtral_shapes(config: Mapping[str, Any]) -> Shapes:
    """The keys of a Mixtral as it is published: each expert's matrices by themselves."""
    wide, narrow = config["hidden_size"], config["intermediate_size"]
    experts, table = config["num_local_experts"], (config["vocab_size"], wide)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": table}
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        moe = f"{layer}.block_sparse_moe"
        for expert in range(experts):
            for name, shape in (
                ("w1", (narrow, wide)),
                ("w2", (wide, narrow)),
                ("w3", (narrow, wide)),
            ):
                shapes[f"{moe}.experts.{expert}.{name}.weight"] = shape
        shapes[f"{moe}.gate.weight"] = (experts, wide)
        for name in "qkvo":
            shapes[f"{layer}.self_attn.{name}_proj.weight"] = (wide, wide)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}.{name}.weight"] = (wide,)
    return shapes | {"model.norm.weight": (wide,), "lm_head.weight": table}


def _shards(shapes: Shapes) -> Iterator[list[str]]:
    """The keys of a benchmark's checkpoint in `SHARDS` groups of about as many elements."""
    whole = sum(torch.Size(shape).numel() for shape in shapes.values())
    group: list[str] = []
    done = number = 0
    for name, shape in shapes.items():
        group.append(name)
        done += torch.Size(shape).numel()
        if done * SHARDS >= whole * (number + 1):
            yield group
            group, number = [], number + 1
