"""What two releases left of one case that is not the same, before any verdict: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from conformance.judge.divergences import compare
from conformance.results.impacts import REPORT, of_kind
from conformance.results.records import Divergence, Observation

if TYPE_CHECKING:
    from conformance.cases.case import Case

# What an own checkpoint's user does not notice: another container in the loading info, another
# name of a module's class.
KIND = "kind-of-tensor"
CONTAINERS = {"list", "set", "tuple", "dict", "dict_keys", "frozenset", None}


def facts_between(
    case: Case, before: Observation, after: Observation
) -> tuple[list[Divergence], list[Divergence]]:
    """What the two loads left that is not the same; and apart, what only one release has at all."""
    facts: list[Divergence] = []
    defaults: list[Divergence] = []
    for found in compare(before, after, clauses=case.clauses):
        if found.kind != "state":  # that is of one process, and verdicts report it
            fact = replace(found, impact=of_kind(found.kind))
            if case.folder and fact.kind == "accepted":  # no verdict: the second release loads it
                fact = replace(fact, kind="rejected", impact=REPORT)
            (defaults if _is_default(fact, before, after) else facts).append(fact)
    return facts, defaults


def _is_default(fact: Divergence, before: Observation, after: Observation) -> bool:
    """Whether it is the release's class that has a field more, and not the load that lost one.

    What a checkpoint says and a release drops is found by its verdict, not between releases.
    """
    if fact.kind in ("config", "generation-config"):
        in_info = fact.where == "loading info" or fact.where in {**(before.info or {})}
        nothing = fact.expected in (None, "absent") or fact.actual in (None, "absent")
        return not in_info and (nothing or fact.where == "transformers_version")
    there = before.tensors.get(fact.where) or after.tensors.get(fact.where)
    only_one = (fact.where in before.tensors) != (fact.where in after.tensors)
    return only_one and there is not None and not there["persistent"]


def without_random(
    facts: Sequence[Divergence], before: Observation, after: Observation
) -> list[Divergence]:
    """The facts without the values of what is in no file: two releases may draw other numbers."""
    missing = [
        set((each.info or {}).get("missing_keys", {}).get("values", ())) for each in (before, after)
    ]
    fresh = missing[0] & missing[1]
    return [
        fact
        for fact in facts
        if not (fact.kind == "values" and fact.where in fresh)
        and not (fact.kind == "output" and fresh)
    ]


def does_nothing(fact: Divergence) -> bool:
    """Whether it is a container of the loading info, the name of a module's class, or a module
    that only one release has, whose tensors tell the same."""
    if fact.kind == KIND:
        return not {fact.expected, fact.actual} & {"present", "absent"}
    if fact.kind == "device-map":  # one that says no more than where the whole model is
        return fact.where == "(all)"
    if fact.kind == "training":
        return "absent" in (fact.expected, fact.actual)
    return (
        fact.kind == "config" and {_hashable(fact.expected), _hashable(fact.actual)} <= CONTAINERS
    )


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str | None) else repr(value)
