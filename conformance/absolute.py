"""Checks that need no other loader: a model against stored bytes and formulas.

The reference builds the classes of the installed transformers, so comparing alone cannot see a
fault that both sides borrow. Each check belongs to a clause and runs in the cases that cite it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from conformance.case import VALID, Case
from conformance.fingerprint import fingerprint
from conformance.outputs import example_inputs, observe_outputs
from conformance.records import Divergence, Observation
from fixtures.write import materialise
from reference_loader import from_pretrained
from reference_loader.llama import Llama, rope_frequencies

Check = Callable[[Case, Path, Any, Observation], Iterable[Divergence]]

# OUT-2: machine epsilons of the model's dtype, relative to the largest logit.
EPSILONS = 64

# RES-14 to RES-18: options that a load from a folder has no use for.
OF_THE_HUB = ("revision", "token", "cache_dir", "local_files_only", "force_download")


def check(case: Case, source: Path, model: Any, observation: Observation) -> Iterator[Divergence]:
    """What the checks of the case's clauses object to; INI-4 is checked in every case."""
    if case.input_class != VALID:
        return
    for clause, run in CHECKS.items():
        if clause in case.clauses or clause == "INI-4":
            for found in run(case, source, model, observation):
                yield Divergence(found.kind, found.where, found.expected, found.actual, clause)


def _stored_bits(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """MAP-1, DTY-7: each parameter is its stored tensor, cast once."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for path in _weight_files(source):
        with safe_open(path, framework="pt") as file:
            for key in sorted(parameters.keys() & set(file.keys())):
                cast = file.get_tensor(key).to(parameters[key].dtype)
                if not _same_bits(cast, parameters[key]):
                    found = observation.tensors[key]["fingerprint"]
                    yield Divergence("values", key, fingerprint(cast), found)


def _same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    if left.shape != right.shape or right.is_meta:
        return False
    pair = [t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (left, right)]
    return torch.equal(*pair)


def _weight_files(source: Path) -> list[Path]:
    return sorted(source.glob("*.safetensors"))


def _written(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """INI-4: nothing is left without memory, or with memory nobody wrote to, which holds NaN."""
    for name, facts in observation.tensors.items():
        if facts["device"] == "meta" and not _places_on_disk(case):
            yield Divergence("device", name, "a device with memory", "meta")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_meta or not tensor.is_floating_point() or not bool(tensor.isnan().any()):
            continue
        if not _stored_with_nan(source, name):
            yield Divergence("values", name, "initialised memory", "uninitialised memory")


def _stored_with_nan(source: Path, name: str) -> bool:
    """Whether the checkpoint itself has NaN there; it may know the name without its prefix."""
    for path in _weight_files(source):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118  no mapping
                same = f".{key}".endswith(f".{name}") or f".{name}".endswith(f".{key}")
                if same and bool(file.get_tensor(key).isnan().any()):
                    return True
    return False


def _places_on_disk(case: Case) -> bool:
    device_map = case.options.get("device_map")
    return isinstance(device_map, dict) and "disk" in device_map.values()


def _rotary(case: Case, source: Path, model: Any, observation: Observation) -> Iterator[Divergence]:
    """INI-1: the rotary frequencies are those of the formula, to float32 rounding."""
    formula = rope_frequencies(json.loads((source / "config.json").read_text("utf-8")))
    for name, buffer in model.named_buffers():
        if name.endswith("inv_freq"):
            yield from _unless_equal("dtype", name, "torch.float32", str(buffer.dtype))
            error = ((buffer.double() - formula) / formula).abs().max().item()
            if not error <= 4 * torch.finfo(torch.float32).eps:
                yield Divergence("values", name, "theta^(-2i/d)", f"relative error {error:.1e}")


def _constructor_buffer(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """INI-2: the buffer of `conformance.models.WithBuffer`."""
    expected = torch.linspace(0.5, 2.0, model.config.vocab_size, dtype=torch.float32)
    yield from _unless_equal(
        "values", "scale", fingerprint(expected), observation.tensors["scale"]["fingerprint"]
    )


def _frozen(case: Case, source: Path, model: Any, observation: Observation) -> Iterator[Divergence]:
    """INI-3: the parameter of `conformance.models.WithFrozenEmbedding`."""
    name = "model.embed_tokens.weight"
    frozen = observation.tensors[name]["requires_grad"]
    yield from _unless_equal("requires_grad", name, False, frozen)


def _fresh_statistics(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """MIS-1: mean and deviation of initialised matrices, norms of ones."""
    for name in sorted(_fresh(observation)):
        tensor = model.get_parameter(name).detach().double()
        if tensor.ndim < 2:
            wanted = 1.0 if "norm" in name else 0.0
            if not torch.all(tensor == wanted):
                yield Divergence("values", name, f"all {wanted}", "other values")
            continue
        wanted = model.config.initializer_range * (2 if "adapter" in name else 1)
        mean, deviation = tensor.mean().item(), tensor.std().item()
        slack = 5 * wanted / math.sqrt(tensor.numel())  # five standard errors
        if not (abs(mean) <= slack and abs(deviation - wanted) <= slack):
            yield Divergence(
                "values", name, f"N(0, {wanted})", f"mean {mean:.2g}, std {deviation:.2g}"
            )


def _fresh(observation: Observation) -> set[str]:
    info = observation.info or {}
    names = [*_values(info, "missing_keys"), *_values(info, "mismatched_keys")]
    return {name.partition(" ")[0] for name in names}


def _values(info: Any, field: str) -> list[str]:
    return list(info.get(field, {}).get("values", ()))


def _still_generator(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """MIS-3: no random number is drawn."""
    before, after = (observation.state[when]["rng"] for when in ("before", "after"))
    yield from _unless_equal("state", "rng", before, after)


def _one_storage(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """TIE-1, TIE-2, TIE-3, TIE-7: embedding and head are one storage."""
    yield from _unless_equal("tie", "lm_head.weight", "the embedding", _shared(observation))


def _two_storages(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """TIE-4, TIE-5, TIE-6: embedding and head are two storages."""
    yield from _unless_equal("tie", "lm_head.weight", "its own", _shared(observation))


def _shared(observation: Observation) -> str:
    head = observation.tensors["lm_head.weight"]["storage"]
    embedding = observation.tensors["model.embed_tokens.weight"]["storage"]
    return "the embedding" if head == embedding else "its own"


def _containers(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """INF-1: four fields, three sets and a list."""
    wanted = dict.fromkeys(("missing_keys", "unexpected_keys", "mismatched_keys"), "set")
    wanted["error_msgs"] = "list"
    found = {field: facts["container"] for field, facts in (observation.info or {}).items()}
    yield from _unless_equal("config", "loading info", wanted, found)


def _true_outputs(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """OUT-2: the logits against our own float64 Llama."""
    judge = from_pretrained(source, model_class=Llama).double()
    inputs = example_inputs(model)
    assert inputs is not None
    with torch.no_grad():
        truth = judge(inputs["input_ids"]).logits
        logits = model(**inputs).logits
    error = ((logits.double() - truth).abs().max() / truth.abs().max()).item()
    # Stock takes norms and rotary angles in float32 also in a float64 model.
    bound = EPSILONS * max(torch.finfo(dtype).eps for dtype in (logits.dtype, torch.float32))
    if not error <= bound:
        yield Divergence("output", "logits", f"within {bound:.1e} of float64", f"{error:.1e} off")


def _as_in_memory(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """OFF-1 to OFF-4: the outputs of the same load without a device map."""
    left_out = ("device_map", "offload_folder")
    options = {name: value for name, value in case.options.items() if name not in left_out}
    in_memory = from_pretrained(source, model_class=case.model_class(), **options)
    expected = observe_outputs(in_memory, greedy=False)
    for name, facts in expected.items():
        yield from _unless_equal("output", name, facts, observation.outputs.get(name, "absent"))


def _as_from_folder(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """RES-14 to RES-18: the values of the load from the folder that was published."""
    options = {name: value for name, value in case.options.items() if name not in OF_THE_HUB}
    if case.hub is not None and case.hub.config:
        options["config"] = materialise(case.hub.config)
    from_folder = from_pretrained(source, model_class=case.model_class(), **options)
    for name, tensor in from_folder.state_dict().items():
        found = observation.tensors.get(name, {}).get("fingerprint", "absent")
        yield from _unless_equal("values", name, fingerprint(tensor), found)


def _from_cache(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """RES-16: as RES-14, and of a file in the cache nothing is sent, but for `force_download`."""
    yield from _as_from_folder(case, source, model, observation)
    assert case.hub is not None
    forced, silent = case.options.get("force_download"), case.hub.offline
    for name, sent in observation.asked.items():
        if silent or case.options.get("local_files_only"):
            yield Divergence("state", name, "not asked for", f"asked for, {sent} bytes sent")
        elif not forced and (source / name).is_file() and _matches(name, case.hub.cached):
            yield from _unless_equal("state", name, "0 bytes sent", f"{sent} bytes sent")
    for path in _weight_files(source) if forced else ():
        found = observation.asked.get(path.name, 0)
        yield from _unless_equal(
            "state", path.name, f"{path.stat().st_size} bytes sent", f"{found} bytes sent"
        )


def _matches(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _evaluation(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """OUT-4: no module trains."""
    for name, (_, training) in observation.modules.items():
        if training:
            yield Divergence("training", name or "(model)", False, True)


def _unless_equal(kind: str, where: str, expected: Any, actual: Any) -> Iterator[Divergence]:
    if expected != actual:
        yield Divergence(kind, where, expected, actual)


CHECKS: dict[str, Check] = {
    "MAP-1": _stored_bits,
    "DTY-7": _stored_bits,
    "INI-1": _rotary,
    "INI-2": _constructor_buffer,
    "INI-3": _frozen,
    "INI-4": _written,
    "MIS-1": _fresh_statistics,
    "MIS-3": _still_generator,
    **dict.fromkeys(("TIE-1", "TIE-2", "TIE-3", "TIE-7"), _one_storage),
    **dict.fromkeys(("TIE-4", "TIE-5", "TIE-6"), _two_storages),
    **dict.fromkeys(("OFF-1", "OFF-2", "OFF-3", "OFF-4"), _as_in_memory),
    **dict.fromkeys(("RES-14", "RES-15", "RES-18"), _as_from_folder),
    "RES-16": _from_cache,
    "INF-1": _containers,
    "OUT-2": _true_outputs,
    "OUT-4": _evaluation,
}
