"""INI: what the constructor makes and no file holds."""

from __future__ import annotations

import json
from collections.abc import Iterator

import torch

from conformance.judge.checks.evidence import Evidence, check, unless_equal
from conformance.judge.checks.stored import has_nan
from conformance.results.fingerprint import fingerprint
from conformance.results.records import Divergence
from reference_loader.llama import rope_frequencies


@check("INI-1")
def rotary_frequencies(seen: Evidence) -> Iterator[Divergence]:
    """The rotary frequencies are those of the formula, to float32 rounding."""
    formula = rope_frequencies(json.loads((seen.folder / "config.json").read_text("utf-8")))
    found = {n: facts for n, facts in seen.of_kind("buffer").items() if n.endswith("inv_freq")}
    if not any(name.endswith(".inv_freq") for name in found):
        yield Divergence("values", "inv_freq", "theta^(-2i/d)", "absent")
    for name, facts in found.items():
        yield from unless_equal("dtype", name, "torch.float32", facts["dtype"])
        values = torch.tensor(seen.observation.details[name]["values"], dtype=torch.float64)
        error = ((values - formula) / formula).abs().max().item()
        if not error <= 4 * torch.finfo(torch.float32).eps:
            yield Divergence("values", name, "theta^(-2i/d)", f"relative error {error:.1e}")


@check("INI-2", "INI-8")
def own_buffers(seen: Evidence) -> Iterator[Divergence]:
    """The buffers of `conformance.world.user_models` have the values that the constructor sets."""
    for name, expected in _values_of_buffers(seen).items():
        found = seen.tensors.get(name, {}).get("fingerprint", "absent")
        yield from unless_equal("values", name, fingerprint(expected), found)


def _values_of_buffers(seen: Evidence) -> dict[str, torch.Tensor]:
    if seen.model_class == "WithBufferInside":
        return {"model.layers.0.extra.weight": torch.full((4, 4), 0.5)}
    if seen.model_class == "WithSeveralBuffers":
        noise = torch.randn(8, generator=torch.Generator().manual_seed(7), dtype=torch.float32)
        mask = torch.ones(4, 4).tril().bool()
        dtypes = (facts["dtype"] for facts in seen.of_kind("parameter").values())
        dtype = getattr(torch, next(dtypes).removeprefix("torch."))
        return {"places": torch.arange(8), "mask": mask, "noise": noise.to(dtype)}
    vocabulary = seen.observation.config["vocab_size"]
    return {"scale": torch.linspace(0.5, 2.0, vocabulary, dtype=torch.float32)}


@check("INI-3")
def frozen_embedding(seen: Evidence) -> Iterator[Divergence]:
    """The embedding that `conformance.world.user_models.WithFrozenEmbedding` freezes is frozen."""
    name = "model.embed_tokens.weight"
    yield from unless_equal("requires_grad", name, False, seen.tensors[name]["requires_grad"])


@check("INI-4")
def initialised_memory(seen: Evidence) -> Iterator[Divergence]:
    """No tensor is left on meta, and none in memory that nothing was written to, which is NaN."""
    for name, facts in seen.tensors.items():
        if facts["device"] == "meta" and not _offloads(seen):
            yield Divergence("device", name, "a device with memory", "meta")
    for name, facts in seen.observation.details.items():
        if facts["nan"] and facts["object"] == name and not has_nan(seen.case, seen.folder, name):
            yield Divergence("values", name, "initialised memory", "uninitialised memory")


def _offloads(seen: Evidence) -> bool:
    """Whether the device map that was given, or that made of `max_memory`, has a disk in it.

    Or the CPU beside a GPU: its modules too are empty until they run.
    """
    given = seen.case.options.get("device_map")
    maps = (given if isinstance(given, dict) else {}, seen.observation.device_map or {})
    empty = {"disk"} if seen.case.device == "cpu" else {"disk", "cpu"}
    return any(empty & set(map(str, device_map.values())) for device_map in maps)
