"""FMT: reading shards."""

from __future__ import annotations

from conformance.case import HALF, Case, rejected

CASES = [
    rejected("fmt/truncated-single", "FMT-1", "model.safetensors", faults=("truncated-shard",)),
    rejected(
        "fmt/truncated-shard",
        "FMT-1",
        "model-00003-of-00003.safetensors",
        recipe="llama-f32-3",
        faults=("truncated-shard",),
    ),
    rejected("fmt/truncated-header", "FMT-2", "model.safetensors", faults=("truncated-header",)),
    rejected(
        "fmt/truncated-header-shard",
        "FMT-2",
        "model-00002-of-00002.safetensors",
        recipe="llama-f32-2",
        faults=("truncated-header",),
    ),
    Case("fmt/no-format-single", ("FMT-3",), faults=("no-format-metadata",)),
    Case("fmt/no-format-sharded", ("FMT-3",), "llama-f32-2", ("no-format-metadata",)),
    Case("fmt/legacy-pickle", ("FMT-4", "OUT-1"), faults=("pickled-legacy",)),
    Case("fmt/legacy-pickle-sharded", ("FMT-4",), "llama-bf16-2", ("pickled-legacy",)),
    Case("fmt/zip-pickle-cast", ("FMT-4", "DTY-7"), "llama-bf16-2", ("pickled",), options=HALF),
    Case("fmt/pickle-undeclared", ("FMT-4", "DTY-2"), "llama-mixed-undeclared", ("pickled",)),
    rejected("fmt/pickle-runs-code", "FMT-5", "pytorch_model.bin", faults=("pickle-runs-code",)),
    rejected(
        "fmt/pickle-runs-code-bf16",
        "FMT-5",
        "pytorch_model.bin",
        recipe="llama-bf16",
        faults=("pickle-runs-code",),
        options={"use_safetensors": False},
    ),
    rejected(
        "fmt/pickle-truncated-bf16",
        "FMT-6",
        "pytorch_model.bin",
        recipe="llama-bf16-2",
        faults=("pickle-truncated",),
    ),
    rejected("fmt/pickle-truncated", "FMT-6", "pytorch_model.bin", faults=("pickle-truncated",)),
]
