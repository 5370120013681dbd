"""The numbers that explain a divergence, measured only if there is one.

Fingerprints decide; here both models are in memory at once and the tensors that differ are held
against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from conformance.cases.case import Case
from conformance.observe.loaders import reference
from conformance.observe.observe import observe
from conformance.observe.outputs import example_inputs, forward
from conformance.results.fingerprint import fingerprint
from conformance.results.records import Divergence
from conformance.world.messages import quiet


def explain(
    case: Case, divergences: Sequence[Divergence], model: nn.Module | None
) -> tuple[Divergence, ...]:
    """The same divergences; those of values and outputs get their numbers.

    Args:
        case: the case, loaded once more with the reference.
        divergences: those of the verdict.
        model: what the judged loader left.
    """
    kinds = {divergence.kind for divergence in divergences}
    if model is None or not kinds & {"values", "output"}:
        return tuple(divergences)
    expected = observe(case, reference).model
    if expected is None:
        return tuple(divergences)
    with quiet():
        outputs = _outputs(expected, model) if "output" in kinds else {}
    return tuple(_explained(divergence, expected, model, outputs) for divergence in divergences)


def _explained(
    divergence: Divergence, expected: nn.Module, actual: nn.Module, outputs: dict[str, str]
) -> Divergence:
    if divergence.kind == "output":
        return replace(divergence, detail=outputs.get(divergence.where, outputs.get("", "")))
    if divergence.kind == "values":
        pair = [_tensors(model).get(divergence.where) for model in (expected, actual)]
        if pair[0] is not None and pair[1] is not None:
            return replace(divergence, detail=difference(pair[0], pair[1]))
    return divergence


def difference(expected: torch.Tensor, actual: torch.Tensor) -> str:
    """How two tensors differ: how many elements, how far at most, and where."""
    if expected.shape != actual.shape or actual.is_meta or expected.is_meta:
        return ""
    left, right = expected.detach().double().reshape(-1), actual.detach().double().reshape(-1)
    unequal = ~((left == right) | (left.isnan() & right.isnan()))
    count = int(unequal.sum())
    if not count:
        return "equal in value, not in bits"
    gap = torch.where(unequal, (left - right).abs(), torch.zeros_like(left))
    worst = int(gap.nan_to_num(nan=torch.inf).argmax())
    compared = unequal & (left != 0)
    relative = (
        f"; {(gap / left.abs())[compared].max().item():.3g} relative" if compared.any() else ""
    )
    place = [int(i) for i in torch.unravel_index(torch.tensor(worst), expected.shape)]
    return (
        f"{count} of {left.numel()} elements; at most {gap[worst].item():.3g} absolute, at "
        f"{place}: {left[worst].item():.8g} became {right[worst].item():.8g}{relative}"
    )


def _outputs(expected: nn.Module, actual: nn.Module) -> dict[str, str]:
    """Output name to how it differs; "" to the first module, in execution order, that differs."""
    inputs = example_inputs(expected)
    if inputs is None:
        return {}
    first = f"the first module whose output differs: {first_difference(expected, actual, inputs)}"
    try:
        left, right = forward(expected, inputs), forward(actual, inputs)
    except Exception as exception:
        return {"": f"{first}; the forward fails: {exception}"}
    pairs = {name: difference(left[name], right[name]) for name in left if name in right}
    return {"": first} | {name: f"{text}; {first}" for name, text in pairs.items()}


def first_difference(expected: nn.Module, actual: nn.Module, inputs: dict[str, Any]) -> str:
    """The first module, in execution order, whose output differs; "none" if none does."""
    left, right = (_trace(model, inputs) for model in (expected, actual))
    for (name, before), (other, after) in zip(left, right, strict=False):
        if (name, before) != (other, after):
            return name or "(model)"
    return "none" if len(left) == len(right) else "one model runs more modules"


def _trace(model: nn.Module, inputs: dict[str, Any]) -> list[tuple[str, str]]:
    """Module name and fingerprint of its first output tensor, in the order of their return."""
    trace: list[tuple[str, str]] = []

    def noted(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) and output else output
            if isinstance(first, torch.Tensor):
                trace.append((name, fingerprint(first)))

        return hook

    handles = [m.register_forward_hook(noted(name)) for name, m in model.named_modules()]
    try:
        forward(model, inputs)
    except Exception:  # `observe_outputs` notes a forward that fails
        pass
    finally:
        for handle in handles:
            handle.remove()
    return trace


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
