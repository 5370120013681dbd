"""What a folder is that no plain load can be judged on: one line that says so, or None."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# The package that runs weights of a quantisation method, by `quantization_config.quant_method`.
PACKAGES = {
    "awq": "autoawq or gptqmodel",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "fp8": "a GPU, or dequantises",
    "gptq": "gptqmodel",
    "mxfp4": "a GPU, or dequantises",
    "torchao": "torchao",
}
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
PATTERNS = ("*.safetensors", "*.bin", "*.gguf", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


def no_checkpoint(folder: Path) -> str | None:
    """Why the folder holds nothing that transformers alone loads as it is; None if it may.

    Example:
        >>> import tempfile
        >>> no_checkpoint(Path(tempfile.mkdtemp()))
        'empty folder'
    """
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if not names:
        return "empty folder"
    config, adapter = _json(folder / "config.json"), _json(folder / "adapter_config.json")
    if "adapter_config.json" in names and "config.json" not in names:
        return (
            f"adapter of {adapter.get('base_model_name_or_path') or 'an unnamed base'} (needs peft)"
        )
    if "config.json" not in names:
        return "no config.json"
    if isinstance(config.get("quantization"), Mapping):
        return "MLX (not a transformers checkpoint)"
    if not any(name in names for name in (*WEIGHTS, config.get("transformers_weights"))):
        found = sorted(path.name for pattern in PATTERNS for path in folder.glob(pattern))
        told = (
            f"weights under another name: {', '.join(found[:3])}"
            if found
            else f"no weights: {WEIGHTS[0]} is missing"
        )
        return told + (", …" if len(found) > 3 else "")
    return None


def quantised(folder: Path) -> str | None:
    """The quantisation of a checkpoint in words, `GPTQ 4 bit (needs gptqmodel)`; None without."""
    given = _json(folder / "config.json").get("quantization_config")
    if not isinstance(given, Mapping):
        return None
    method = str(given.get("quant_method") or "unknown method")
    bits = given.get("bits") or next(
        (bits for bits in (4, 8) if given.get(f"load_in_{bits}bit") is True), None
    )
    told = (method.upper() if len(method) < 6 else method) + (f" {bits} bit" if bits else "")
    needs = PACKAGES.get(method)
    return f"{told} (needs {needs})" if needs else f"{told} (quantised)"


def adapter_beside(folder: Path) -> str | None:
    """A note on an adapter that lies beside the weights and that only peft applies; or None."""
    if not (folder / "adapter_config.json").is_file():
        return None
    return "an adapter lies beside the weights (adapter_config.json); only peft applies it"


def notes(folders: Iterable[Path]) -> list[str]:
    """A line for each checkpoint with something that no verdict speaks of."""
    return [f"{folder.name}: {note}" for folder in folders if (note := adapter_beside(folder))]


def _json(path: Path) -> Mapping[str, Any]:
    """A JSON object; empty if the file is absent or holds none."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
