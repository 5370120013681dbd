"""CNV: stored tensors that a release converts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open

from conformance.cases.case import Case
from conformance.judge.checks.evidence import Evidence, check, unless_equal
from conformance.judge.checks.stored import weight_files
from conformance.results.fingerprint import fingerprints
from conformance.results.records import Divergence

# What Mixtral calls the matrices of an expert, by the name of the merged tensor that they are in.
MATRICES = {"gate_up_proj": ("w1", "w3"), "down_proj": ("w2",)}


@check("CNV-1")
def experts_stacked(seen: Evidence) -> Iterator[Divergence]:
    """Each merged tensor of experts is the stack of the stored ones, by their numbers."""
    stored = _stored(seen.case, seen.folder)
    for name, facts in seen.of_kind("parameter").items():
        merged = re.fullmatch(r"(.*layers\.\d+\.).*\.experts\.(\w+_proj)", name)
        if merged is None:
            continue
        dtype = getattr(torch, facts["dtype"].removeprefix("torch."))
        wanted = torch.cat(
            [_stack(stored, merged[1], matrix, dtype) for matrix in MATRICES[merged[2]]], dim=1
        )
        yield from unless_equal("shape", name, list(wanted.shape), facts["shape"])
        digest = fingerprints({name: wanted})[name]
        yield from unless_equal("values", name, digest, facts["fingerprint"])


def _stored(case: Case, folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in weight_files(case, folder):
        with safe_open(path, framework="pt") as file:
            found |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  no mapping
    return found


def _stack(
    stored: dict[str, torch.Tensor], layer: str, matrix: str, dtype: torch.dtype
) -> torch.Tensor:
    """The matrices of one name of all experts of a layer, in the order of their numbers."""
    numbered = {}
    for key, tensor in stored.items():
        found = re.fullmatch(rf"{re.escape(layer)}.*\.experts\.(\d+)\.{matrix}\.weight", key)
        if found:
            numbered[int(found[1])] = tensor.to(dtype)
    return torch.stack([numbered[number] for number in sorted(numbered)])
