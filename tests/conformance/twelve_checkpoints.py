"""The twelve checkpoints of a maintainer who is about to upgrade, written by the installed release.

`python -m tests.conformance.twelve_checkpoints DIR` writes them; `conformance compare A B DIR/*` is
what the maintainer asks then. Each is tiny, in the layout in which its kind is published.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

SIZES: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
TOKENS: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
DECODER = SIZES | TOKENS
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
}

# A class that was right until a release computed its buffer no more: it is not stored, and nothing
# but the constructor gives it values.
OWN_CLASS = '''"""A model of one's own, with a buffer that its constructor computes."""

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel


class OwnConfig(PretrainedConfig):
    model_type = "own"

    def __init__(self, width=8, **kwargs):
        self.width = width
        super().__init__(**kwargs)


class OwnModel(PreTrainedModel):
    config_class = OwnConfig
    base_model_prefix = "own"

    def __init__(self, config):
        super().__init__(config)
        self.linear = nn.Linear(config.width, config.width)
        self.register_buffer("scale", torch.linspace(1, 2, config.width), persistent=False)
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, nn.Linear):
            module.weight.data.normal_(std=0.02)

    def forward(self, input_ids=None, **kwargs):
        return self.linear(self.scale.expand(2, -1))
'''


def _saved(folder: Path, model: Any, dtype: torch.dtype = torch.float32) -> None:
    """A model with weights that are far from what an initialisation gives."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05 + 0.5)
    model.to(dtype).save_pretrained(folder)


def llama(folder: Path) -> None:
    """A Llama in bfloat16, as most decoders are published."""
    config = transformers.LlamaConfig(**DECODER)
    _saved(folder, transformers.LlamaForCausalLM(config), torch.bfloat16)


def llama_shards(folder: Path) -> None:
    """A tied Llama of several shards."""
    config = transformers.LlamaConfig(**DECODER, tie_word_embeddings=True)
    _saved(folder, transformers.LlamaForCausalLM(config))
    whole = folder / "model.safetensors"
    tensors = load_file(whole)
    whole.unlink()
    names = sorted(tensors)
    parts = {1: names[::2], 2: names[1::2]}
    index = {}
    for number, part in parts.items():
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
        index |= dict.fromkeys(part, file)
    size = sum(tensor.nbytes for tensor in tensors.values())
    content = {"metadata": {"total_size": size}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content), "utf-8")


def qwen2(folder: Path) -> None:
    """A Qwen2 with tied embeddings."""
    config = transformers.Qwen2Config(**DECODER, tie_word_embeddings=True)
    _saved(folder, transformers.Qwen2ForCausalLM(config), torch.bfloat16)


def gpt2(folder: Path) -> None:
    """A GPT-2."""
    config = transformers.GPT2Config(
        vocab_size=128, n_embd=32, n_layer=2, n_head=4, n_positions=64, **TOKENS
    )
    _saved(folder, transformers.GPT2LMHeadModel(config))


def bert_classifier(folder: Path) -> None:
    """A BERT with a head for three classes."""
    sizes = {name: SIZES[name] for name in SIZES if name != "num_key_value_heads"}
    config = transformers.BertConfig(**sizes, num_labels=3)
    _saved(folder, transformers.BertForSequenceClassification(config))


def t5(folder: Path) -> None:
    """A T5, an encoder and a decoder with one embedding."""
    config = transformers.T5Config(
        vocab_size=128,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
    )
    _saved(folder, transformers.T5ForConditionalGeneration(config))


def mixtral(folder: Path) -> None:
    """A Mixtral: each expert's matrices are stored by themselves."""
    config = transformers.MixtralConfig(**DECODER, num_local_experts=4, num_experts_per_tok=2)
    _saved(folder, transformers.MixtralForCausalLM(config))


def qwen3_experts(folder: Path) -> None:
    """A Qwen3 with experts."""
    config = transformers.Qwen3MoeConfig(
        **DECODER, head_dim=8, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2
    )
    _saved(folder, transformers.Qwen3MoeForCausalLM(config), torch.bfloat16)


def llava(folder: Path) -> None:
    """A model of vision and language, in parts with a config each."""
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION),
        text_config=transformers.LlamaConfig(**DECODER),
        image_token_index=127,
    )
    _saved(folder, transformers.LlavaForConditionalGeneration(config))


def own_class(folder: Path) -> None:
    """A class of the user's, whose code lies beside the weights."""
    folder.mkdir()
    (folder / "modeling_own.py").write_text(OWN_CLASS, "utf-8")
    fields = {
        "model_type": "own",
        "width": 8,
        "architectures": ["OwnModel"],
        "auto_map": {
            "AutoConfig": "modeling_own.OwnConfig",
            "AutoModel": "modeling_own.OwnModel",
        },
    }
    (folder / "config.json").write_text(json.dumps(fields), "utf-8")
    weights = {"linear.weight": torch.full((8, 8), 0.5), "linear.bias": torch.full((8,), 0.25)}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def adapter(folder: Path) -> None:
    """An adapter of peft's, without the model that it belongs to."""
    folder.mkdir()
    fields = {"base_model_name_or_path": "llama", "peft_type": "LORA", "r": 2}
    (folder / "adapter_config.json").write_text(json.dumps(fields), "utf-8")
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    weights = {name.format("A"): torch.ones(2, 32), name.format("B"): torch.ones(32, 2)}
    save_file(weights, folder / "adapter_model.safetensors", {"format": "pt"})


def quantised(folder: Path) -> None:
    """A Llama in four bits, as GPTQ stores it."""
    llama(folder)
    path = folder / "config.json"
    fields = json.loads(path.read_text("utf-8"))
    fields["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    path.write_text(json.dumps(fields), "utf-8")


TWELVE: dict[str, Callable[[Path], None]] = {
    each.__name__.replace("_", "-"): each
    for each in (
        llama,
        llama_shards,
        qwen2,
        gpt2,
        bert_classifier,
        t5,
        mixtral,
        qwen3_experts,
        llava,
        own_class,
        adapter,
        quantised,
    )
}


def write(place: Path) -> list[Path]:
    """The folders of the twelve checkpoints, written under `place`, which must exist."""
    for name, written in TWELVE.items():
        written(place / name)
    return [place / name for name in TWELVE]


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    print(*write(target), sep="\n")
