"""Checks that need no other loader: a model against stored bytes and formulas.

The reference builds the classes of the installed transformers, so comparing alone cannot see a
fault that both sides borrow. Each check belongs to a clause and runs in the cases that cite it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from conformance.cases.case import SEED, VALID, Case
from conformance.observe.outputs import example_inputs, observe_outputs
from conformance.results.fingerprint import fingerprint
from conformance.results.records import Divergence, Observation
from conformance.spec import clauses
from conformance.world.mapped_files import is_view, mapped
from conformance_fixtures.write import materialise
from reference_loader import from_pretrained
from reference_loader.llama import Llama, rope_frequencies

Check = Callable[[Case, Path, Any, Observation], Iterable[Divergence]]

# OUT-2: machine epsilons of the model's dtype, relative to the largest logit.
EPSILONS = 64

# MIS-2: layers that the library initialises with one call.
PLAIN = ("lm_head.weight", "score.weight", "proj.weight")

# OFF: options that only say how weights are kept on disk.
OFFLOADING = ("offload_folder", "offload_buffers", "offload_state_dict")

# What the families call the embedding; what the class named ties, whatever the config says.
EMBEDDINGS = ("model.embed_tokens.weight", "shared.weight", "backbone.embeddings.weight")
TIED = {
    "T5ForConditionalGeneration": ("shared.weight", "embed_tokens.weight", "lm_head.weight"),
    "WithTwin": ("embed_tokens.weight", "twin.weight"),
}

# TIE-11: the model types that are documented to be tied where the config does not say.
TIED_TYPES = ("t5", "mamba")

# RES-14 to RES-18: options that a load from a folder has no use for.
OF_THE_HUB = ("revision", "token", "cache_dir", "local_files_only", "force_download")


def check(case: Case, source: Path, model: Any, observation: Observation) -> Iterator[Divergence]:
    """What the checks of the case's clauses object to; INI-4 is checked in every case."""
    if case.input_class != VALID:
        return
    for clause, run in CHECKS.items():
        if clause in case.clauses or clause == "INI-4":
            for found in _findings(clause, run, (case, source, model, observation)):
                yield replace(found, clause=clause)


def _findings(
    clause: str, run: Check, subject: tuple[Case, Path, Any, Observation]
) -> Iterator[Divergence]:
    try:
        yield from run(*subject)
    except Exception as cause:  # a model that a check cannot even look at breaks its clause
        told = f"{type(cause).__name__}: {cause}"
        kind = clauses()[clause].kinds[0]
        yield Divergence(kind, "(check)", "a model that can be checked", told)


def _stored_bits(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """MAP-1, DTY-7, MIS-6: each parameter is its stored tensor, cast once."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for path in _weight_files(source):
        with safe_open(path, framework="pt") as file:
            for key in sorted(parameters.keys() & set(file.keys())):
                cast = file.get_tensor(key).to(parameters[key].dtype)
                if cast.shape != parameters[key].shape:
                    shapes = list(cast.shape), list(parameters[key].shape)
                    yield Divergence("shape", key, *shapes)
                elif not _same_bits(cast, parameters[key]):
                    found = observation.tensors[key]["fingerprint"]
                    yield Divergence("values", key, fingerprint(cast), found)


def _same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    if right.is_meta:
        return False
    pair = [t.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for t in (left, right)]
    return torch.equal(*pair)


def _weight_files(source: Path) -> list[Path]:
    return sorted(source.glob("*.safetensors"))


def _written(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """INI-4: nothing is left without memory, or with memory nobody wrote to, which holds NaN."""
    for name, facts in observation.tensors.items():
        if facts["device"] == "meta" and not _offloads(case, observation):
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


def _offloads(case: Case, observation: Observation) -> bool:
    """Whether the map asked for, or that made of the budgets, has a disk in it.

    Or the CPU beside a GPU: its modules too are empty until they run.
    """
    asked = case.options.get("device_map")
    maps = (asked if isinstance(asked, dict) else {}, observation.device_map or {})
    empty = {"disk"} if case.device == "cpu" else {"disk", "cpu"}
    return any(empty & set(map(str, device_map.values())) for device_map in maps)


def _rotary(case: Case, source: Path, model: Any, observation: Observation) -> Iterator[Divergence]:
    """INI-1: the rotary frequencies are those of the formula, to float32 rounding."""
    formula = rope_frequencies(json.loads((source / "config.json").read_text("utf-8")))
    found = {name: b for name, b in model.named_buffers() if name.endswith("inv_freq")}
    if not any(name.endswith(".inv_freq") for name in found):
        yield Divergence("values", "inv_freq", "theta^(-2i/d)", "absent")
    for name, buffer in found.items():
        yield from _unless_equal("dtype", name, "torch.float32", str(buffer.dtype))
        error = ((buffer.double().cpu() - formula) / formula).abs().max().item()
        if not error <= 4 * torch.finfo(torch.float32).eps:
            yield Divergence("values", name, "theta^(-2i/d)", f"relative error {error:.1e}")


def _own_buffers(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """INI-2, INI-8: the buffers of the models in `conformance.world.user_models`."""
    for name, expected in _values_of_buffers(model).items():
        found = observation.tensors.get(name, {}).get("fingerprint", "absent")
        yield from _unless_equal("values", name, fingerprint(expected), found)


def _values_of_buffers(model: Any) -> dict[str, torch.Tensor]:
    name = type(model).__name__
    if name == "WithBufferInside":
        return {"model.layers.0.extra.weight": torch.full((4, 4), 0.5)}
    if name == "WithSeveralBuffers":
        noise = torch.randn(8, generator=torch.Generator().manual_seed(7), dtype=torch.float32)
        mask = torch.ones(4, 4).tril().bool()
        return {"places": torch.arange(8), "mask": mask, "noise": noise.to(model.dtype)}
    return {"scale": torch.linspace(0.5, 2.0, model.config.vocab_size, dtype=torch.float32)}


def _float32_buffers(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """DTY-8: the rotary frequencies, which a Llama makes in float32."""
    for name, buffer in model.named_buffers():
        if name.endswith("inv_freq"):
            yield from _unless_equal("dtype", name, "torch.float32", str(buffer.dtype))


def _frozen(case: Case, source: Path, model: Any, observation: Observation) -> Iterator[Divergence]:
    """INI-3: the parameter of `conformance.world.user_models.WithFrozenEmbedding`."""
    name = "model.embed_tokens.weight"
    frozen = observation.tensors[name]["requires_grad"]
    yield from _unless_equal("requires_grad", name, False, frozen)


def _fresh_statistics(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """MIS-1: mean, deviation and kurtosis of initialised matrices, norms of ones."""
    for name in sorted(_fresh(observation)):
        tensor = model.get_parameter(name).detach().double()
        if tensor.is_meta:
            continue  # INI-4 says so
        if tensor.ndim < 2:
            wanted = 1.0 if "norm" in name else getattr(model, "given_bias", 0.0)
            if not torch.all(tensor == wanted):
                yield Divergence("values", name, f"all {wanted}", "other values")
            continue
        wanted = model.config.initializer_range * (2 if "adapter" in name else 1)
        mean, deviation = tensor.mean().item(), tensor.std().item()
        kurtosis = ((tensor - mean) / deviation).pow(4).mean().item()  # 3 of a normal distribution
        slack = 5 / math.sqrt(tensor.numel())  # five standard errors of the mean
        close = abs(mean) <= slack * wanted and abs(deviation - wanted) <= slack * wanted
        if not (close and abs(kurtosis - 3) <= math.sqrt(24) * slack):
            found = f"mean {mean:.2g}, std {deviation:.2g}, kurtosis {kurtosis:.2g}"
            yield Divergence("values", name, f"N(0, {wanted})", found)


def _seeded_numbers(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """MIS-2: one fresh head or projection has the seed's first normal numbers, in every release.

    The embedding also has a row for padding, and a user's layer may be initialised in any way.
    """
    fresh = {observation.tensors[name]["storage"] for name in _fresh(observation)}
    matrices = [name for name in fresh if len(observation.tensors[name]["shape"]) == 2]
    if len(matrices) != 1 or not matrices[0].endswith(PLAIN):
        return
    facts, weight = observation.tensors[matrices[0]], model.get_parameter(matrices[0])
    if not weight.is_meta:
        generator = torch.Generator().manual_seed(SEED)
        drawn = torch.empty(weight.shape, dtype=weight.dtype)
        drawn.normal_(0.0, model.config.initializer_range, generator=generator)
        yield from _unless_equal("values", matrices[0], fingerprint(drawn), facts["fingerprint"])


def _fresh(observation: Observation) -> set[str]:
    info = observation.info or {}
    names = [*_values(info, "missing_keys"), *_values(info, "mismatched_keys")]
    return {name.partition(" ")[0] for name in names} & observation.tensors.keys()


def _values(info: Any, field: str) -> list[str]:
    return list(info.get(field, {}).get("values", ()))


def _still_generator(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """MIS-3: no random number is drawn."""
    before, after = (observation.state[when]["rng"] for when in ("before", "after"))
    yield from _unless_equal("state", "rng", before, after)


def _memory_of_its_own(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """FMT-13: no parameter keeps more memory than its elements take."""
    for name, parameter in model.named_parameters():
        taken, kept = parameter.nbytes, parameter.untyped_storage().nbytes()
        yield from _unless_equal("tie", name, f"{taken} bytes kept", f"{kept} bytes kept")


def _takes_gradients(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """STA-4: no parameter was made under the inference mode of the caller."""
    for name, parameter in model.named_parameters():
        if parameter.is_inference():
            yield Divergence("requires_grad", name, "takes gradients", "an inference tensor")


def _one_storage(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """TIE-1, TIE-2, TIE-3, TIE-7, TIE-9: embedding and head are one storage."""
    yield from _unless_equal("tie", "lm_head.weight", "the embedding", _shared(observation))


def _two_storages(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """TIE-4, TIE-5, TIE-6: embedding and head are two storages."""
    yield from _unless_equal("tie", "lm_head.weight", "its own", _shared(observation))


def _tied_by_default(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """TIE-11: one storage or two, as the model type is documented."""
    documented = "the embedding" if model.config.model_type in TIED_TYPES else "its own"
    yield from _unless_equal("tie", "lm_head.weight", documented, _shared(observation))


def _shared(observation: Observation) -> str:
    storage = {name: facts["storage"] for name, facts in observation.tensors.items()}
    embedding = next(name for name in EMBEDDINGS if name in storage)
    return "the embedding" if storage["lm_head.weight"] == storage[embedding] else "its own"


def _all_names_one_storage(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """TIE-8, TIE-10: embedding, head and what else is tied to them are one storage."""
    tied = [name for name in observation.tensors if name.endswith(TIED[type(model).__name__])]
    for name in tied:
        yield from _unless_equal("tie", name, tied[0], observation.tensors[name]["storage"])


def _containers(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """INF-1: four fields, three sets and an empty list."""
    wanted = dict.fromkeys(("missing_keys", "unexpected_keys", "mismatched_keys"), "set")
    wanted["error_msgs"] = "list"
    found = {field: facts["container"] for field, facts in (observation.info or {}).items()}
    yield from _unless_equal("config", "loading info", wanted, found)
    yield from _unless_equal(
        "config", "error_msgs", [], _values(observation.info or {}, "error_msgs")
    )


def _true_outputs(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """OUT-2: the logits against our own float64 Llama."""
    judge = from_pretrained(source, model_class=Llama).double()
    inputs = example_inputs(model)
    assert inputs is not None
    with torch.no_grad():
        truth = judge(inputs["input_ids"].cpu()).logits
        logits = model(**inputs).logits.cpu()
    error = ((logits.double() - truth).abs().max() / truth.abs().max()).item()
    # Stock takes norms and rotary angles in float32 also in a float64 model.
    bound = EPSILONS * max(torch.finfo(dtype).eps for dtype in (logits.dtype, torch.float32))
    if not error <= bound:
        yield Divergence("output", "logits", f"within {bound:.1e} of float64", f"{error:.1e} off")


def _as_in_memory(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """OFF-1 to OFF-5, OFF-8: the outputs of the same load, same seed, without a device map.

    Where the case has a GPU: of the load onto that alone, which is where accelerate computes.
    """
    # The state dict of a case is that of its folder.
    left_out = {"device_map", "max_memory", "state_dict", "config", *OFFLOADING}
    options = {name: value for name, value in case.options.items() if name not in left_out}
    if case.device != "cpu":
        options["device_map"] = case.device
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(SEED)
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


def _whole_layers(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """PLC-6: each layer is in one place."""
    for name in observation.device_map or {}:
        if re.match(r"model\.layers\.\d+\.", name):
            yield Divergence(
                "device-map", name, "in the place of its layer", "in a place of its own"
            )


def _within_budget(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """PLC-8: the parameters on a device take no more bytes than its budget."""
    for place, budget in case.options["max_memory"].items():
        device = torch.device("cuda", place) if isinstance(place, int) else torch.device(place)
        held = sum(p.nbytes for p in model.parameters() if p.device == device)
        if held > _bytes(budget):
            yield Divergence("device", str(device), f"at most {budget} bytes", f"{held} bytes")


def _bytes(size: int | str) -> int:
    """A budget as a number; in words it is one of powers of ten."""
    if isinstance(size, int):
        return size
    return int(size[:-2]) * {"KB": 10**3, "MB": 10**6, "GB": 10**9}[size[-2:]]


def _views(case: Case, source: Path, model: Any, observation: Observation) -> Iterator[Divergence]:
    """MEM-1: each parameter lies in the mapping of a file of the checkpoint."""
    spans = mapped(source)
    for name, parameter in model.named_parameters():
        if not is_view(parameter, spans):
            yield Divergence("state", name, "a view of the file", "memory of its own")


def _nothing_mapped(
    case: Case, source: Path, model: Any, observation: Observation
) -> Iterator[Divergence]:
    """MEM-2: no file of the checkpoint is mapped."""
    if mapped(source):
        yield Divergence("state", "files of the source", "none mapped", "still mapped")


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
    "MIS-6": _stored_bits,
    "DTY-8": _float32_buffers,
    "FMT-13": _memory_of_its_own,
    "INI-1": _rotary,
    **dict.fromkeys(("INI-2", "INI-8"), _own_buffers),
    "INI-3": _frozen,
    "INI-4": _written,
    "MIS-1": _fresh_statistics,
    "MIS-2": _seeded_numbers,
    "MIS-3": _still_generator,
    **dict.fromkeys(("TIE-1", "TIE-2", "TIE-3", "TIE-7", "TIE-9"), _one_storage),
    "TIE-11": _tied_by_default,
    "MEM-1": _views,
    "MEM-2": _nothing_mapped,
    **dict.fromkeys(("TIE-4", "TIE-5", "TIE-6"), _two_storages),
    **dict.fromkeys(("TIE-8", "TIE-10"), _all_names_one_storage),
    **dict.fromkeys(("OFF-1", "OFF-2", "OFF-3", "OFF-4", "OFF-5", "OFF-8"), _as_in_memory),
    **dict.fromkeys(("RES-14", "RES-15", "RES-18"), _as_from_folder),
    "RES-16": _from_cache,
    "PLC-6": _whole_layers,
    "PLC-8": _within_budget,
    "INF-1": _containers,
    "STA-4": _takes_gradients,
    "OUT-2": _true_outputs,
    "OUT-4": _evaluation,
}
