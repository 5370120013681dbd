"""Two judged runs to what changed between them: pure functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from conformance.judge.between_releases import does_nothing, facts_between, without_random
from conformance.judge.moved_outputs import without_small_moves
from conformance.judge.renames import with_renames
from conformance.results.impacts import (
    ACCEPTS_BAD,
    FAILS,
    IMPACTS,
    UNSAFE,
    WRONG_MODEL,
    gravest,
    of_kind,
)
from conformance.results.records import (
    AGREE,
    DIVERGE,
    ERROR,
    KNOWN,
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
ADDED, REMOVED, NOT_JUDGED = "added", "removed", "not judged"
CHANGES = (REGRESSED, CHANGED, FIXED, NOT_JUDGED, ADDED, REMOVED, UNCHANGED)
_OLD_WORDS = {"incomparable": NOT_JUDGED}  # of reports that earlier versions wrote

# Words that say for which of two releases the specification decides.
FIRST, SECOND, BOTH, NEITHER = "first", "second", "both", "neither"

# What a divergence must do to its user so that breaking it anew is a regression, even where
# something else of the case was wrong before.
GRAVE = (WRONG_MODEL, FAILS, UNSAFE, ACCEPTS_BAD)

# Statuses of a result that breaks a clause.
BROKEN = (DIVERGE, KNOWN)

# What `--fail-on` takes, and what fails a run by default.
FAIL_ON = (REGRESSED, CHANGED, FIXED, *IMPACTS)
DEFAULT_FAIL_ON = (REGRESSED, CHANGED, WRONG_MODEL, FAILS, UNSAFE)

# Model classes that were made to show something.
OF_THE_SUITE = "conformance."


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
        reason: why the case was not judged.
        accepted: the reason for which the user accepts it.
        rerun: the line that reruns just this case.
        seconds, peak_bytes: of the load, in each target; None where it was not observed.
        impact: the gravest that the kinds of its divergences have by default; None without any.
        deviations: the known deviations of the second target.
        common: whether most users meet the case: a valid checkpoint of a model class that is not
            the suite's own, loaded with at most one option.
        folded: how many differences do nothing to a user: containers of the loading info, class
            names of modules. They are counted, and are no change of an own checkpoint.
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
    folded: int = 0

    @property
    def checkpoint(self) -> str:
        """The name of the user's checkpoint that the case is on; "" for a case of the suite."""
        return self.case.split("/")[1] if self.case.startswith("own/") else ""

    def record(self) -> dict[str, Any]:
        """The line of `report.jsonl`."""
        fields = asdict(self)
        targets = {"from": fields.pop("before"), "to": fields.pop("after")}
        return {"record": "change", **targets, **fields}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Change:
        """A change that was written as a line of `report.jsonl`."""
        targets = {"before": record["from"], "after": record["to"]}
        targets["change"] = _OLD_WORDS.get(record["change"], record["change"])
        return cls(**fields_of(cls, {**record, **targets}))


def changes(before: Iterable[Outcome], after: Iterable[Outcome]) -> list[Change]:
    """What changed, case by case, in the order of the catalogue.

    A head that neither release has for the checkpoint is no case.
    """
    left, right = ({each.case.id: each for each in run} for run in (before, after))
    pairs = [(left[case], right[case]) for case in left if case in right]
    return [
        change(*pair)
        for pair in pairs
        if not all(each.case.optional and each.result.status == SKIP for each in pair)
    ]


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
        return replace(blank, change=_appearance(first, second), reason=_why_not(first, second))
    if before.observation is None or after.observation is None:
        return replace(blank, change=NOT_JUDGED, reason=_why_not(first, second))
    compared = _compared(blank, before, after)
    if ERROR not in (first.status, second.status):
        return compared
    # Without the reference there is no verdict, but stock can still be held against stock.
    kind = compared.change if before.case.folder and compared.divergences else NOT_JUDGED
    return replace(compared, change=kind, reason=_why_not(first, second))


def is_common(case: Case) -> bool:
    """Whether most users meet the case; see `Change.common`."""
    odd = case.faults or case.hub or case.under or case.threads > 1 or case.input_class != "valid"
    of_ours = case.folder is not None or case.model.startswith(OF_THE_SUITE)
    return not odd and not of_ours and len(case.options) <= 1


def _both(observations: Iterable[Observation | None], name: str) -> Any:
    return tuple(None if each is None else getattr(each, name) for each in observations)


def _appearance(first: Result, second: Result) -> str:
    """What a case is that one of the two, or both, skip."""
    if first.status == second.status:
        return NOT_JUDGED
    return ADDED if first.status == SKIP else REMOVED


def _why_not(first: Result, second: Result) -> str:
    """Why there is no verdict, said once where both have the same reason."""
    failed = [result for result in (first, second) if result.status in (ERROR, SKIP)]
    reasons = {result.reason for result in failed}
    if len(failed) == 2 and len(reasons) == 1:
        return failed[0].reason
    return "; ".join(f"{result.target}: {result.reason}" for result in failed)


def _compared(blank: Change, before: Outcome, after: Outcome) -> Change:
    assert before.observation is not None and after.observation is not None
    first, second = _broken(before.result), _broken(after.result)
    if before.case.threads > 1:
        return replace(blank, change=_of_threads(before.result, after.result))
    facts, defaults = facts_between(before.case, before.observation, after.observation)
    facts = without_random(facts, before.observation, after.observation)
    facts, moved = without_small_moves(facts, before.observation, after.observation)
    divergences = _with_verdicts(facts, before.result, after.result)
    divergences = with_renames(divergences, before.observation, after.observation)
    divergences = [_decided(each, before.result, after.result) for each in divergences]
    folded = [each for each in divergences if before.case.folder and does_nothing(each)]
    divergences = [each for each in divergences if each not in folded]
    return replace(
        blank,
        change=_kind(before.result, after.result, divergences),
        folded=len(folded),
        divergences=tuple(divergences),
        regressed=tuple(clause for clause in second if clause not in first),
        fixed=tuple(clause for clause in first if clause not in second),
        moved=moved,
        defaults=tuple(map(_place, defaults)),
        deviation=after.result.deviation,
        impact=gravest(each.impact or of_kind(each.kind) for each in divergences),
        deviations=after.result.deviations,
    )


def _of_threads(first: Result, second: Result) -> str:
    """The word for loads in several threads: what a race leaves is another thing each time, so
    only an unknown fault that comes or goes counts."""
    if (first.status, second.status) == (AGREE, DIVERGE):
        return REGRESSED
    return FIXED if (first.status, second.status) == (DIVERGE, AGREE) else UNCHANGED


def _kind(first: Result, second: Result, divergences: Sequence[Divergence]) -> str:
    """The word for a case that both releases loaded.

    Whatever else was wrong before, what is broken anew and does harm is a regression; and what
    becomes right is fixed only if nothing is broken anew.
    """
    broken = [{(d.kind, d.where, d.clause) for d in _grave(each)} for each in (first, second)]
    if (first.status == AGREE and second.status in BROKEN) or broken[1] - broken[0]:
        return REGRESSED
    if second.status == AGREE and first.status in BROKEN:
        return FIXED
    return CHANGED if divergences else UNCHANGED


def _grave(result: Result) -> list[Divergence]:
    """What of a result can give a wrong model, fail, or let something bad pass."""
    return [d for d in result.divergences if (d.impact or of_kind(d.kind)) in GRAVE]


def _decided(fact: Divergence, first: Result, second: Result) -> Divergence:
    """The divergence with the release that is right, as far as the two verdicts say.

    A verdict speaks of the same fact if it is of the same place, or, for what follows from others,
    such as outputs, of the same clause.
    """
    if ERROR in (first.status, second.status):
        return fact
    wrong = [
        any((d.kind, d.where) == (fact.kind, fact.where) for d in result.divergences)
        or (fact.kind == "output" and bool(_grave(result)))
        for result in (first, second)
    ]
    word = {(False, True): FIRST, (True, False): SECOND, (True, True): NEITHER}
    return replace(fact, right=word.get((wrong[0], wrong[1]), BOTH))


def _broken(result: Result) -> list[str]:
    return list(dict.fromkeys(divergence.clause for divergence in result.divergences))


def _place(fact: Divergence) -> str:
    return f"{fact.kind} {fact.where}"


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


def exit_code(
    found: Iterable[Change],
    fail_on: Collection[str] = DEFAULT_FAIL_ON,
    *,
    allow_unjudged: bool = False,
) -> int:
    """1 for what fails the run and is not accepted; else 2 for what was not judged; else 0.

    Args:
        found: the changes.
        fail_on: words of `FAIL_ON`.
        allow_unjudged: whether what was not judged is left out of account.
    """
    found = list(found)
    if any(_fails(each, fail_on) and not each.accepted for each in found):
        return 1
    return 2 * (not allow_unjudged and any(each.change == NOT_JUDGED for each in found))


def _fails(found: Change, fail_on: Collection[str]) -> bool:
    """Whether a change fails the run.

    The impacts count for own checkpoints whoever is right: what is fixed changes them too.
    """
    if found.change in fail_on:
        return True
    own = found.case.startswith("own/") and found.change in (REGRESSED, CHANGED, FIXED)
    return own and any((d.impact or of_kind(d.kind)) in fail_on for d in found.divergences)
