"""What an absolute check gets, and how a function is declared to be one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.cases.case import Case
from conformance.results.records import Divergence, Observation
from conformance.spec import clauses


@dataclass(frozen=True)
class Evidence:
    """What a check judges by.

    Attributes:
        case: what was loaded.
        folder: the checkpoint.
        observation: what the load left.
        baseline: what the reference leaves of `baseline(case)`; None where no clause needs it.
    """

    case: Case
    folder: Path
    observation: Observation
    baseline: Observation | None = None

    @property
    def tensors(self) -> Mapping[str, Mapping[str, Any]]:
        """Name to the facts of every parameter and buffer."""
        return self.observation.tensors

    @property
    def model_class(self) -> str:
        """The name of the class of the model."""
        return self.observation.modules[""][0]

    @property
    def plain_load(self) -> Observation:
        """The baseline.

        Raises:
            ValueError: it was not observed, or that load failed.
        """
        if self.baseline is None:
            raise ValueError("the baseline was not observed")
        if self.baseline.exception is not None:
            raise ValueError(f"the baseline does not load: {self.baseline.exception['message']}")
        return self.baseline

    def of_kind(self, kind: str) -> dict[str, Mapping[str, Any]]:
        """The facts of every "parameter" or "buffer", by each of its names."""
        return {name: facts for name, facts in self.tensors.items() if facts["kind"] == kind}

    def parameters(self) -> dict[str, Mapping[str, Any]]:
        """The details of every parameter, once each, by its first name."""
        details = self.observation.details
        return {n: details[n] for n in self.of_kind("parameter") if details[n]["object"] == n}

    def fresh(self) -> set[str]:
        """The tensors that the loading info lists as missing or mismatched."""
        names = [*self.listed("missing_keys"), *self.listed("mismatched_keys")]
        return {name.partition(" ")[0] for name in names} & self.tensors.keys()

    def listed(self, field: str) -> list[str]:
        """The entries of a field of the loading info."""
        return list((self.observation.info or {}).get(field, {}).get("values", ()))


Function = Callable[[Evidence], Iterable[Divergence]]


@dataclass(frozen=True)
class Check:
    """A function that objects to what breaks one of its clauses.

    Attributes:
        clauses: it runs in the cases that cite one of them.
        objections: the function; its divergences name no clause.
        of_failed_loads: whether it also runs where the load raised.
    """

    clauses: tuple[str, ...]
    objections: Function
    of_failed_loads: bool = False


def check(*clauses: str, of_failed_loads: bool = False) -> Callable[[Function], Check]:
    """Declare a function to be the check of these clauses."""
    return lambda function: Check(clauses, function, of_failed_loads)


def unless_equal(kind: str, where: str, expected: Any, actual: Any) -> Iterator[Divergence]:
    """A divergence if the two differ."""
    if expected != actual:
        yield Divergence(kind, where, expected, actual)


def pairs_equal(clause: str) -> Check:
    """The check of a clause whose experiment notes what must be and what is."""
    kind = clauses()[clause].kinds[0]

    def objections(seen: Evidence) -> Iterator[Divergence]:
        """In each pair of facts that the experiment noted, what is equals what must be."""
        for where, (expected, actual) in seen.observation.usage[clause].items():
            yield from unless_equal(kind, where, expected, actual)

    return Check((clause,), objections)
