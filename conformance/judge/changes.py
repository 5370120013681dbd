"""Two judged runs to what changed between them: pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from conformance.judge.divergences import compare
from conformance.results.impacts import gravest, of_kind
from conformance.results.records import (
    AGREE,
    ERROR,
    SKIP,
    Divergence,
    KnownDeviation,
    Observation,
    Result,
    fields_of,
)

if TYPE_CHECKING:
    from conformance.cases.case import Case

REGRESSED, FIXED, CHANGED, UNCHANGED = "regressed", "fixed", "changed", "unchanged"
ADDED, REMOVED, INCOMPARABLE = "added", "removed", "incomparable"
CHANGES = (REGRESSED, CHANGED, FIXED, INCOMPARABLE, ADDED, REMOVED, UNCHANGED)

# Model classes that were made to show something.
OF_THE_SUITE = "conformance."

# Units in the last place of the largest logit: what the order of additions alone may move. It is
# the bound of OUT-2, within which logits are right.
TOLERANCE = 64.0


@dataclass(frozen=True)
class Outcome:
    """What one target made of a case; without an observation, the result says why."""

    case: Case
    result: Result
    observation: Observation | None = None


@dataclass(frozen=True)
class Change:
    """What changed in one case from one target to another.

    Attributes:
        case, clauses: the case, and what it checks.
        before, after: the targets, as their user wrote them.
        change: one of `CHANGES`.
        divergences: what differs, `expected` in the first target and `actual` in the second.
        regressed: clauses that the second target breaks and the first does not.
        fixed: the other way round.
        moved: how far outputs moved, where that is within the tolerance.
        defaults: fields that only one of the two releases gives a value at all.
        deviation: the ids of the known deviations of the second target, joined.
        reason: why the two cannot be compared.
        accepted: the reason for which the user accepts it.
        rerun: the line that reruns just this case.
        seconds, peak_bytes: of the load, in each target; None where it was not observed.
        impact: the gravest that the kinds of its divergences have by default; None without any.
        deviations: the known deviations of the second target.
        common: whether most users meet the case: a valid checkpoint of a model class that is not
            the suite's own, loaded with at most one option.
    """

    case: str
    clauses: tuple[str, ...]
    before: str
    after: str
    change: str
    divergences: tuple[Divergence, ...] = ()
    regressed: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    moved: str = ""
    defaults: tuple[str, ...] = ()
    deviation: str | None = None
    reason: str = ""
    accepted: str = ""
    rerun: str = ""
    seconds: tuple[float | None, float | None] = (None, None)
    peak_bytes: tuple[int | None, int | None] = (None, None)
    impact: str | None = None
    deviations: tuple[KnownDeviation, ...] = ()
    common: bool = False

    def record(self) -> dict[str, Any]:
        """The line of `report.jsonl`."""
        fields = asdict(self)
        targets = {"from": fields.pop("before"), "to": fields.pop("after")}
        return {"record": "change", **targets, **fields}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Change:
        """A change that was written as a line of `report.jsonl`."""
        targets = {"before": record["from"], "after": record["to"]}
        return cls(**fields_of(cls, {**record, **targets}))


def changes(before: Iterable[Outcome], after: Iterable[Outcome]) -> list[Change]:
    """What changed, case by case, in the order of the catalogue."""
    left, right = ({each.case.id: each for each in run} for run in (before, after))
    both = [*left, *(case for case in right if case not in left)]
    return [change(left[case], right[case]) for case in both if case in left and case in right]


def change(before: Outcome, after: Outcome) -> Change:
    """What changed in one case. `regressed`: it agreed with the specification, and no longer does;
    `changed`: both agree or both diverge, and what the load left is not the same."""
    first, second = before.result, after.result
    seen = (before.observation, after.observation)
    blank = Change(
        *(first.case, first.clauses, first.target, second.target, UNCHANGED),
        rerun=second.rerun,
        seconds=_both(seen, "seconds"),
        peak_bytes=_both(seen, "peak_bytes"),
        common=is_common(before.case),
    )
    if SKIP in (first.status, second.status):
        return replace(blank, change=_appearance(first, second))
    if before.observation is None or after.observation is None or _errors(first, second):
        return replace(blank, change=INCOMPARABLE, reason=_why_not(first, second))
    return _compared(blank, before, after)


def is_common(case: Case) -> bool:
    """Whether most users meet the case; see `Change.common`."""
    odd = case.faults or case.hub or case.under or case.threads > 1 or case.input_class != "valid"
    of_ours = case.folder is not None or case.model.startswith(OF_THE_SUITE)
    return not odd and not of_ours and len(case.options) <= 1


def _both(observations: Iterable[Observation | None], name: str) -> Any:
    return tuple(None if each is None else getattr(each, name) for each in observations)


def _appearance(first: Result, second: Result) -> str:
    if first.status == second.status:
        return UNCHANGED
    return ADDED if first.status == SKIP else REMOVED


def _errors(first: Result, second: Result) -> bool:
    return ERROR in (first.status, second.status)


def _why_not(first: Result, second: Result) -> str:
    failed = [result for result in (first, second) if result.status == ERROR]
    return "; ".join(f"{result.target}: {result.reason}" for result in failed)


def _compared(blank: Change, before: Outcome, after: Outcome) -> Change:
    assert before.observation is not None and after.observation is not None
    first, second = _broken(before.result), _broken(after.result)
    facts, defaults = _facts(before.case, before.observation, after.observation)
    facts, moved = _without_small_moves(facts, before.observation, after.observation)
    divergences = _with_verdicts(facts, before.result, after.result)
    return replace(
        blank,
        change=_kind(before.result, after.result, divergences),
        divergences=tuple(divergences),
        regressed=tuple(clause for clause in second if clause not in first),
        fixed=tuple(clause for clause in first if clause not in second),
        moved=moved,
        defaults=tuple(map(_place, defaults)),
        deviation=after.result.deviation,
        impact=gravest(of_kind(each.kind) for each in divergences),
        deviations=after.result.deviations,
    )


def _kind(first: Result, second: Result, divergences: Sequence[Divergence]) -> str:
    if (first.status == AGREE) != (second.status == AGREE):
        return REGRESSED if first.status == AGREE else FIXED
    return CHANGED if divergences else UNCHANGED


def _broken(result: Result) -> list[str]:
    return list(dict.fromkeys(divergence.clause for divergence in result.divergences))


def _facts(
    case: Case, before: Observation, after: Observation
) -> tuple[list[Divergence], list[Divergence]]:
    """What the two loads left that is not the same; and apart, what only one release has at all."""
    facts: list[Divergence] = []
    defaults: list[Divergence] = []
    for found in compare(before, after, clauses=case.clauses):
        if found.kind != "state":  # that is of one process, and verdicts report it
            fact = replace(found, impact=of_kind(found.kind))
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


def _place(fact: Divergence) -> str:
    return f"{fact.kind} {fact.where}"


def _without_small_moves(
    facts: Sequence[Divergence], before: Observation, after: Observation
) -> tuple[list[Divergence], str]:
    """Outputs that only moved within the tolerance leave the list; the rest get their numbers."""
    outputs = [fact for fact in facts if fact.kind == "output" and _is_tensor(fact)]
    others = [fact for fact in facts if fact not in outputs]
    if not outputs:
        return others, ""
    units = moved_by(before.accuracy, after.accuracy)
    if units is None:
        return list(facts), ""
    told, further = in_words(units, before.accuracy, after.accuracy)
    if units <= TOLERANCE and not further:
        return others, told
    return [*others, *(replace(fact, detail=told) for fact in outputs)], ""


def _is_tensor(fact: Divergence) -> bool:
    """Whether it is a tensor of one dtype and shape in both, in which numbers can be compared."""
    if not isinstance(fact.expected, Mapping) or not isinstance(fact.actual, Mapping):
        return False
    return all(fact.expected.get(name) == fact.actual.get(name) for name in ("dtype", "shape"))


def moved_by(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> float | None:
    """How far the logits moved at most, in units in the last place; None where that is not known.

    Args:
        before, after: what `accuracy.accuracy` noted.
    """
    if not before or not after or len(before["sample"]) != len(after["sample"]):
        return None
    furthest = max(abs(a - b) for a, b in zip(before["sample"], after["sample"], strict=True))
    return float(furthest / after["unit"]) if after["unit"] else None


def in_words(
    units: float, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> tuple[str, bool]:
    """The move as a text, and whether it leads further from the truth by more than one unit."""
    moved = f"logits moved by {units:.2g} ulp"
    first, second = (accuracy["error"] if accuracy else None for accuracy in (before, after))
    if first is None or second is None:
        return f"{moved}; no independent forward to tell which is right", False
    if second > first + 1:
        return f"{moved}, further from the truth: {first:.2g} ulp, then {second:.2g}", True
    close = "closer to" if second < first - 1 else "still as close to"
    return f"{moved}, {close} the truth: {first:.2g} ulp, then {second:.2g}", False


def _with_verdicts(facts: Sequence[Divergence], first: Result, second: Result) -> list[Divergence]:
    """The facts, and what only a verdict tells: state, messages, checks without a comparison."""
    seen = {(fact.kind, fact.where) for fact in facts}
    before, after = (
        {(d.kind, d.where): d for d in result.divergences} for result in (first, second)
    )
    gone = [
        replace(d, expected=d.actual, actual=d.expected)
        for place, d in before.items()
        if place not in after and place not in seen and d.kind in TOLD_BY_VERDICTS
    ]
    come = [
        d
        for place, d in after.items()
        if place not in before and place not in seen and d.kind in TOLD_BY_VERDICTS
    ]
    return [*facts, *gone, *come] or _from_checks(before, after)


def _from_checks(
    before: Mapping[tuple[str, str], Divergence], after: Mapping[tuple[str, str], Divergence]
) -> list[Divergence]:
    """What an absolute check finds in one of two loads that left the same."""
    gone = [replace(d, expected=d.actual, actual=d.expected) for d in before.values()]
    return [*after.values(), *gone] if before.keys() != after.keys() else []


# Where two observations have nothing to compare, or what is compared is not of this kind.
TOLD_BY_VERDICTS = ("state", "message", "exception", "accepted", "rejected")


def exit_code(found: Iterable[Change]) -> int:
    """2 for what could not be compared; 1 for what regressed or changed and is not accepted."""
    found = list(found)
    if any(each.change == INCOMPARABLE for each in found):
        return 2
    return int(any(each.change in (REGRESSED, CHANGED) and not each.accepted for each in found))
