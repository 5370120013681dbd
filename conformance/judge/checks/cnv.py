"""CNV: stored tensors that a release converts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from conformance.cases.case import Case
from conformance.judge.checks.evidence import Evidence, check, unless_equal
from conformance.judge.checks.mixture import mixtral
from conformance.judge.checks.out import far_from
from conformance.judge.checks.stored import weight_files
from conformance.results.fingerprint import fingerprints
from conformance.results.records import Divergence

# What the matrices of an expert are called, by the name of the merged tensor that they are in.
MATRICES = {"gate_up_proj": ("w1|gate_proj", "w3|up_proj"), "down_proj": ("w2|down_proj",)}


@check("CNV-1", "CNV-6")
def experts_stacked(seen: Evidence) -> Iterator[Divergence]:
    """Each merged tensor of experts is the stack of the stored ones, by their numbers."""
    stored = _stored(seen.case, seen.folder)
    fresh = seen.fresh()
    for name, facts in seen.of_kind("parameter").items():
        merged = re.fullmatch(r"(.*layers\.\d+\.).*\.experts\.(\w+_proj)", name)
        if merged is None or name in stored or name in fresh:
            continue
        matrices = [_stack(stored, merged[1], matrix) for matrix in MATRICES[merged[2]]]
        yield from _unless_holds(name, facts, torch.cat(matrices, dim=1))


@check("CNV-5")
def stored_as_in_the_model(seen: Evidence) -> Iterator[Divergence]:
    """What is stored under the name of a parameter is that parameter."""
    parameters = seen.of_kind("parameter")
    for name, tensor in _stored(seen.case, seen.folder).items():
        if name in parameters:
            yield from _unless_holds(name, parameters[name], tensor)


@check("CNV-7")
def gate_and_up_fused(seen: Evidence) -> Iterator[Divergence]:
    """As `user_shapes` registers it: the rows of the gate, then those of the up projection."""
    stored = _stored(seen.case, seen.folder)
    for name, facts in seen.of_kind("parameter").items():
        if ".mlp.gate_up_proj." in name:
            halves = [stored[name.replace("gate_up", half)] for half in ("gate", "up")]
            yield from _unless_holds(name, facts, torch.cat(halves))


@check("CNV-8")
def true_logits_of_experts(seen: Evidence) -> Iterator[Divergence]:
    """The logits are those of our own mixture of experts in float64, over the stored tensors."""
    config = json.loads((seen.folder / "config.json").read_text("utf-8"))
    yield from far_from(mixtral(config, _stored(seen.case, seen.folder)), seen)


def _unless_holds(
    name: str, facts: Mapping[str, Any], tensor: torch.Tensor
) -> Iterator[Divergence]:
    """A divergence unless a parameter is the tensor, cast to its dtype."""
    wanted = tensor.to(getattr(torch, facts["dtype"].removeprefix("torch.")))
    yield from unless_equal("shape", name, list(wanted.shape), facts["shape"])
    digest = fingerprints({name: wanted})[name]
    yield from unless_equal("values", name, digest, facts["fingerprint"])


def _stored(case: Case, folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in weight_files(case, folder):
        with safe_open(path, framework="pt") as file:
            found |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  no mapping
    return found


def _stack(stored: dict[str, torch.Tensor], layer: str, matrix: str) -> torch.Tensor:
    """The matrices of one name of all experts of a layer, in the order of their numbers.

    In float64, which holds the values of whatever dtypes they have.
    """
    numbered = {}
    for key, tensor in stored.items():
        found = re.fullmatch(rf"{re.escape(layer)}.*\.experts\.(\d+)\.(?:{matrix})\.weight", key)
        if found:
            numbered[int(found[1])] = tensor.double()
    return torch.stack([numbered[number] for number in sorted(numbered)])
