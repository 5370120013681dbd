"""From two observations to the divergences between them: a pure function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from conformance.results.records import NO_MODEL, Divergence, Observation
from conformance.spec import clause_for

# Fact of a tensor to the kind of divergence in it.
TENSOR_KINDS = {
    "kind": "kind-of-tensor",
    "class": "kind-of-tensor",
    "persistent": "kind-of-tensor",
    "dtype": "dtype",
    "shape": "shape",
    "stride": "stride",
    "device": "device",
    "requires_grad": "requires_grad",
    "storage": "tie",
    "fingerprint": "values",
}

INFO_KINDS = {
    "missing_keys": "missing",
    "unexpected_keys": "unexpected",
    "mismatched_keys": "mismatched",
}

# The exceptions that stock documents; rejections are compared by these, not by class.
DOCUMENTED = ("OSError", "ValueError", "TypeError", "RuntimeError")


def compare(
    expected: Observation,
    actual: Observation,
    names: tuple[str, ...] = (),
    acceptable: bool = False,
    clauses: tuple[str, ...] = (),
) -> list[Divergence]:
    """How `actual` differs from `expected`: the only function that compares two observations.

    Args:
        expected, actual: the observations.
        names: what the message of an expected exception must contain.
        acceptable: whether a rejection is as good as the load that was expected.
        clauses: those that the case cites: each difference then names the clause that it breaks.
    """
    found = list(_compared(expected, actual, names, acceptable))
    if not clauses:
        return found
    return [replace(d, clause=clause_for(d.kind, clauses, d.where)) for d in found]


def _compared(
    expected: Observation, actual: Observation, names: tuple[str, ...], acceptable: bool
) -> list[Divergence]:
    return [*_secrets(actual), *_of_the_load(expected, actual, names, acceptable)]


def _secrets(actual: Observation) -> Iterator[Divergence]:
    """Where the loader told the token of its caller."""
    for place in actual.messages.get("secret", ()):
        yield Divergence("secret", place, "no token", "the token of the caller")


def _of_the_load(
    expected: Observation, actual: Observation, names: tuple[str, ...], acceptable: bool
) -> list[Divergence]:
    if (told := _no_exception(expected, actual)) is not None:
        return [told, *_state(actual)]
    if expected.exception is not None:
        return [*_rejections(expected.exception, actual.exception, names), *_state(actual)]
    if actual.exception is not None:
        if acceptable:
            return [*_state(actual)]
        described = f"{actual.exception['types'][0]}: {actual.exception['message']}"
        return [Divergence("rejected", "(load)", "a model", described)]
    return [
        *_tensors(expected.tensors, actual.tensors),
        *_mapping("kind-of-tensor", _classes(expected, actual), _classes(actual, expected)),
        *_mapping("training", _training(expected), _training(actual)),
        *_info(expected.info, actual.info),
        *_mapping("config", expected.config, actual.config),
        *_mapping("generation-config", expected.generation_config, actual.generation_config),
        *_mapping("device-map", expected.device_map, actual.device_map),
        *_mapping("type", _types(expected, actual), _types(actual, expected)),
        *_mapping("output", expected.outputs, actual.outputs),
        *_mapping("gradient", _gradients(expected), _gradients(actual)),
        *_state(actual),
        *_mapping("state", _left(expected), _left(actual)),
    ]


def _no_exception(expected: Observation, actual: Observation) -> Divergence | None:
    """What a loader did that neither returned a model nor raised an exception of its caller's."""
    raised = actual.exception
    if raised is None or (expected.exception or {}).get("types") == raised["types"]:
        return None
    described = f"{raised['types'][0]}: {raised['message']}"
    if NO_MODEL in raised["types"]:
        return Divergence("no-model", "(load)", "a model, or an exception", described)
    if "BaseException" in raised["types"] and "Exception" not in raised["types"]:
        return Divergence("exit", "(load)", "a model, or an exception", described)
    return None


def _rejections(
    expected: Mapping[str, Any], actual: Mapping[str, Any] | None, names: tuple[str, ...]
) -> Iterator[Divergence]:
    wanted = next((name for name in expected["types"] if name in DOCUMENTED), expected["types"][0])
    if actual is None:
        yield Divergence("accepted", "(load)", f"{wanted}: {expected['message']}", "a model")
        return
    if wanted not in actual["types"]:
        yield Divergence("exception", "(type)", wanted, actual["types"][0])
    unnamed = [name for name in names if name not in actual["message"]]
    if unnamed:
        yield Divergence("message", "(message)", f"names {', '.join(unnamed)}", actual["message"])


def _tensors(
    expected: Mapping[str, Mapping[str, Any]], actual: Mapping[str, Mapping[str, Any]]
) -> Iterator[Divergence]:
    for name in _union(expected, actual):
        if name not in expected or name not in actual:
            there = ("present", "absent")
            left, right = there if name in expected else reversed(there)
            yield Divergence("kind-of-tensor", name, left, right)
            continue
        for fact, kind in TENSOR_KINDS.items():
            if expected[name][fact] != actual[name][fact]:
                yield Divergence(kind, name, expected[name][fact], actual[name][fact])


def _info(
    expected: Mapping[str, Any] | None, actual: Mapping[str, Any] | None
) -> Iterator[Divergence]:
    if expected is None or actual is None:
        if expected != actual:
            yield Divergence("config", "loading info", _given(expected), _given(actual))
        return
    for name in _union(expected, actual):
        left, right = expected.get(name, {}), actual.get(name, {})
        if left.get("container") != right.get("container"):
            yield Divergence("config", name, left.get("container"), right.get("container"))
        if left.get("values") != right.get("values"):
            kind = INFO_KINDS.get(name, "config")
            yield Divergence(kind, name, left.get("values"), right.get("values"))


def _given(info: Mapping[str, Any] | None) -> str:
    return "none" if info is None else "given"


def _types(observation: Observation, other: Observation) -> dict[str, str]:
    """Types of what both have, where the values are the same as JSON: another value, or one that is
    lacking, is a divergence of its own."""
    return {
        place: told
        for place, told in observation.types.items()
        if told and other.types.get(place) and _field(observation, place) == _field(other, place)
    }


def _field(observation: Observation, place: str) -> Any:
    """The value that holds this place of `observe_types`: a field of a config, the device map."""
    top, _, inner = place.partition(".")
    if top == "device map":
        return observation.device_map
    values = {"config": observation.config, "generation_config": observation.generation_config}
    fields = values.get(top)
    return fields.get(inner.partition(".")[0]) if isinstance(fields, Mapping) else fields


def _classes(observation: Observation, other: Observation) -> dict[str, str]:
    """Classes of the modules that both have; other modules show in their training flags."""
    shared = observation.modules.keys() & other.modules.keys()
    return {name or "(model)": observation.modules[name][0] for name in sorted(shared)}


def _training(observation: Observation) -> dict[str, bool]:
    return {name or "(model)": flags[1] for name, flags in observation.modules.items()}


def _gradients(observation: Observation) -> dict[str, Any]:
    """Parameter to the fingerprint of its gradient."""
    return {name: facts["fingerprint"] for name, facts in observation.gradients.items()}


def _state(actual: Observation) -> Iterator[Divergence]:
    """What a load changed in its process; `_left` compares the RNG state."""
    before, after = (dict(actual.state.get(when, {})) for when in ("before", "after"))
    if actual.exception is None:
        before.pop("rng", None), after.pop("rng", None)
    yield from _mapping("state", before, after)


def _left(observation: Observation) -> dict[str, Any]:
    """The RNG state, and the files in the offload folder if there is one."""
    generator = {"rng": observation.state.get("after", {}).get("rng")}
    return generator | dict(observation.state.get("left", {}))


def _mapping(
    kind: str, expected: Mapping[str, Any] | None, actual: Mapping[str, Any] | None
) -> Iterator[Divergence]:
    if expected is None or actual is None:
        if expected != actual:
            yield Divergence(kind, "(all)", expected, actual)
        return
    for name in _union(expected, actual):
        left, right = expected.get(name, "absent"), actual.get(name, "absent")
        if left != right:
            yield Divergence(kind, name, left, right)


def _union(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[str]:
    return [*left, *(name for name in right if name not in left)]
