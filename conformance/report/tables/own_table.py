"""The first screen of `compare` on own checkpoints: what changes, who is right, what to do.

A checkpoint is loaded in many ways, and one cause shows in most of them: what differs alike is one
row, with the number of the ways.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.table import Table
from rich.text import Text

from conformance.judge.changes import (
    BOTH,
    FIRST,
    NEITHER,
    NOT_JUDGED,
    REGRESSED,
    SECOND,
    UNCHANGED,
    Change,
)
from conformance.judge.renames import RENAMED
from conformance.report.explanation import shown
from conformance.results.impacts import REPORT, WRONG_MODEL, of_kind, rank
from conformance.results.name_patterns import grouped
from conformance.results.records import Divergence
from conformance.results.text import plain

# What explains most comes first; what follows from it is left out where it is of the same tensor.
TELLING = (
    *("rejected", "accepted", RENAMED, "missing", "tie", "dtype", "shape", "kind-of-tensor"),
    *("values", "requires_grad", "device", "device-map", "mismatched", "unexpected", "training"),
    *("generation-config", "output", "config", "state", "exception", "message", "stride"),
)
# Kinds whose expected and actual facts are digests, which say nothing to a reader.
DIGESTS = ("values", "state", "output")
ABSENCES = (("present", "absent"), ("absent", "present"))
# Who is right, in the order in which its owner wants to know.
WRONG_FIRST = (FIRST, NEITHER, "", BOTH, SECOND)
CODE = re.compile(r"\b[A-Z][a-z]+(?:[A-Z][a-z]*)+(?=: )")
DTYPE_FIELDS = ("dtype", "torch_dtype")
CAUSES = {"dtype", "values", "missing", "rejected"}
FOLLOWS = {"values": ("dtype", "shape", "tie"), "stride": ("shape", "dtype"), "shape": ("tie",)}

# What to do about a difference of each kind.
ADVICE = {
    "rejected": "stay with {before} for this checkpoint, or convert it: see the message",
    "accepted": "check the checkpoint with `conformance explain --check`",
    RENAMED: "use the new names in code that reads state_dict() or named_modules()",
    "missing": "rename the stored keys, or pass key_mapping",
    "tie": "set tie_word_embeddings in config.json, or store both weights",
    "dtype": 'pass dtype="{dtype}" to keep what {before} gives',
    "shape": "check the config against the stored shapes",
    "kind-of-tensor": "do not rely on this name in code that reads the model",
    "values": "stay with {before}, or load with reference_loader, until this is fixed",
    "requires_grad": "set requires_grad yourself before training",
    "generation-config": "set the field in generation_config.json or in generate()",
    "output": "compare outputs on data of your own before the upgrade",
    "unexpected": "check that these stored weights are not needed",
    "device-map": "pass a device_map that names each module",
}
# Of what concerns reports only, what has a row of its own.
NEWS = (RENAMED, "rejected", "missing")
FRESH_BUFFER = "compute the buffer in _init_weights, or register it as persistent"
NOTHING = "nothing"
ANY = "read the clause: `conformance spec {clause}`"


# Checkpoint, impact, what changes, which release is right, what to do.
Row = tuple[str, str, str, str, str]


@dataclass
class Fact:
    """What differs alike in some ways of loading a checkpoint.

    Attributes:
        checkpoint, kind, clause, impact, right: of the differences, see `Divergence`.
        example: one of them.
        places: where they are.
        forms: the ways of loading in which they show.
        regressed: whether a clause is broken anew in one of these.
        accepted: the reasons for which all of these changes are accepted.
        follows: what follows from it.
    """

    checkpoint: str
    kind: str
    clause: str
    impact: str
    right: str
    example: Divergence
    places: list[str] = field(default_factory=list)
    forms: list[str] = field(default_factory=list)
    regressed: bool = False
    accepted: str = ""
    follows: str = ""

    def what(self, after: str) -> str:
        """The difference in words: `loads as bfloat16 (was float32)`."""
        names = grouped(dict.fromkeys(self.places))
        place = names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        old, new = (plain(shown(x), 60) for x in (self.example.expected, self.example.actual))
        text = {
            "dtype": f"loads as {_bare(new)} (was {_bare(old)}): {place}{self.follows}",
            RENAMED: f"{old} is now {new}: {self.example.detail}",
            "values": f"values of {place} differ{self.follows}",
            "tie": f"{place} shares memory with {new} (was {old})",
            "output": f"outputs differ: {self.example.detail or ', '.join(names[:2])}"
            + ("" if self.example.detail else _more(len(names) - 2)),
            "rejected": f"{after} does not load it: {new}",
        }.get(self.kind, f"{self.kind} of {place}: {old} → {new}")
        if _is_absence(self.example):
            text = f"{place} is gone" if new == "absent" else f"{place} is new"
        if self.kind == "state":
            text = f"the load leaves another {place}"
        if self.kind == "missing":
            text = self._weights_left_random(after)
        if self.kind == "rejected" and new == "a model":
            text = f"{after} loads it; before: {old}"
        if self.kind == "output" and self.example.where == "exception":
            text = f"the model runs in {after}; before: {old}"
            if new != "absent":
                text = f"the model does not run in {after}: {new}"
        return plain(text)

    def _weights_left_random(self, after: str) -> str:
        lost, found = newly_missing(self.example)
        if lost and found:
            return f"{after} reports other weights as missing: {lost[0]}, before {found[0]}"
        names = grouped(lost or found)
        which = f"{len(lost or found)} weights random: {names[0]}{_more(len(names) - 1)}"
        return f"{after} leaves {which}" if lost else f"{after} loads what was left random: {which}"

    def advice(self, before: str) -> str:
        """What its owner can do."""
        if self.kind == "rejected" and self.example.actual == "a model":
            return NOTHING
        if self.kind == "state" and self.right == SECOND:
            return NOTHING
        if self.kind == "missing" and not newly_missing(self.example)[0]:
            return NOTHING
        if self.kind == "output" and self.example.where == "exception":
            return "read the message" if self.right != SECOND else NOTHING
        fresh_buffer = self.kind == "values" and self.clause.startswith("INI-")
        text = FRESH_BUFFER if fresh_buffer else ADVICE.get(self.kind, ANY)
        return text.format(
            before=before, dtype=_bare(str(self.example.expected)), clause=self.clause or "CLAUSE"
        )


def _bare(dtype: str) -> str:
    return dtype.removeprefix("torch.")


def facts(changes: Iterable[Change]) -> list[Fact]:
    """What differs in own checkpoints, the gravest first; what follows from another is left out."""
    found: dict[tuple[str, ...], Fact] = {}
    for change in changes:
        checkpoint = change.checkpoint
        form = change.case.rpartition("/")[2]
        for each in _causes(change.divergences):
            same = (checkpoint, each.kind, each.right, str(change.accepted))
            # Fingerprints say nothing to a reader, and differ from tensor to tensor.
            values: tuple[str, ...] = (str(each.expected), str(each.actual))
            if each.kind in DIGESTS:
                values = (each.where,) if each.kind == "state" else ()
            if each.kind == "missing":  # a head adds a prefix to each name
                values = tuple(str(bool(names)) for names in newly_missing(each))
            impact = _impact(each, change)
            fact = found.setdefault(
                (*same, *values),
                Fact(checkpoint, each.kind, each.clause, impact, each.right, each),
            )
            fact.places.append(each.where)
            if any(other.kind == "output" for other in change.divergences):
                fact.follows = "; outputs differ"
            fact.accepted = change.accepted
            fact.regressed |= change.change == REGRESSED and each.clause in change.regressed
            if form not in fact.forms:
                fact.forms.append(form)
    return sorted(found.values(), key=_gravity)


def _impact(divergence: Divergence, change: Change) -> str:
    """The impact of a difference on the owner of the checkpoint.

    A weight that is missing now is random now. A name that is gone changes no output where outputs
    were computed and are equal: it concerns code that reads names.
    """
    if divergence.kind == "missing" and divergence.where == "missing_keys":
        lost, found = newly_missing(divergence)
        return WRONG_MODEL if lost and not found else REPORT
    harmful = {"output", "values", "missing"} & {each.kind for each in change.divergences}
    if _is_absence(divergence) and not harmful:
        return REPORT
    return divergence.impact or of_kind(divergence.kind)


def newly_missing(divergence: Divergence) -> tuple[list[str], list[str]]:
    """The weights that only the second release reports as missing, and those only the first."""
    before, after = (
        list(told) if isinstance(told, (list, tuple)) else []
        for told in (divergence.expected, divergence.actual)
    )
    return ([x for x in after if x not in before], [x for x in before if x not in after])


def _gravity(fact: Fact) -> tuple[int, int, int]:
    """Impact first; then what the specification calls wrong; then what explains most."""
    telling = TELLING.index(fact.kind) if fact.kind in TELLING else len(TELLING)
    right = WRONG_FIRST.index(fact.right) if fact.right in WRONG_FIRST else len(WRONG_FIRST)
    return rank(fact.impact), right, telling


def _causes(divergences: Sequence[Divergence]) -> Iterator[Divergence]:
    """The differences without those that follow from another one."""
    kinds: dict[str, set[str]] = {}
    for each in divergences:
        kinds.setdefault(each.where, set()).add(each.kind)
    others = {each.kind for each in divergences} - {"output", "config", "state"}
    for each in divergences:
        follows = kinds[each.where] & set(FOLLOWS.get(each.kind, ()))
        follows |= others & CAUSES if each.kind == "output" else set()
        follows |= others & {"dtype"} if each.where.rpartition(".")[2] in DTYPE_FIELDS else set()
        # Weights that are found under other names, or no longer: names come and go with that.
        follows |= others & {"missing"} if _is_absence(each) else set()
        if not follows:
            yield each


def _is_absence(divergence: Divergence) -> bool:
    return (divergence.expected, divergence.actual) in ABSENCES


def right_in_words(right: str, before: str, after: str) -> str:
    """Which release keeps to the specification, for a column."""
    words = {FIRST: before, SECOND: after, BOTH: "both", NEITHER: "neither"}
    return words.get(right, "not judged")


def unjudged(changes: Iterable[Change]) -> dict[tuple[str, str], list[str]]:
    """Of what was not judged: checkpoint and reason, to the ways of loading.

    One error in several ways, told of other paths and classes, is one reason: the first.
    """
    first: dict[tuple[str, ...], str] = {}
    found: dict[tuple[str, str], list[str]] = {}
    for change in changes:
        if change.change == NOT_JUDGED:
            codes = sorted(set(CODE.findall(change.reason))) or [change.reason]
            reason = first.setdefault((change.checkpoint, *codes), change.reason)
            found.setdefault((change.checkpoint, reason), []).append(change.case.rpartition("/")[2])
    return found


def own_table(changes: Sequence[Change]) -> Table:
    """A row for each thing that changes in each checkpoint, then a row for each that does not."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("checkpoint", "impact", "what changes", "right", "what to do"):
        table.add_column(name, ratio={"what changes": 5, "what to do": 3}.get(name))
    for row in own_rows(changes):
        table.add_row(*map(Text, row))
    return table


def own_rows(changes: Sequence[Change]) -> Iterator[Row]:
    """Checkpoint, impact, what changes, which release is right, and what to do."""
    if not changes:
        return
    before, after = changes[0].before, changes[-1].after
    told: set[str] = set()
    found = facts(changes)
    small = [fact for fact in found if fact.impact == REPORT and fact.kind not in NEWS]
    better = [fact for fact in found if fact not in small and fact.advice(before) == NOTHING]
    for fact in [fact for fact in found if fact not in small and fact not in better]:
        told.add(fact.checkpoint)
        advice = f"accepted: {fact.accepted}" if fact.accepted else fact.advice(before)
        yield (
            *(plain(fact.checkpoint), fact.impact, fact.what(after) + _ways(fact.forms)),
            *(right_in_words(fact.right, before, after), plain(advice)),
        )
    told |= {fact.checkpoint for fact in better}
    yield from _improved(better, before, after)
    for checkpoint in dict.fromkeys(fact.checkpoint for fact in small):
        told.add(checkpoint)
        mine = [f"{each.kind} of {each.example.where}" for each in small]
        mine = [w for w, each in zip(mine, small, strict=True) if each.checkpoint == checkpoint]
        told_of = f"{', '.join(dict.fromkeys(mine[:3]))}{_more(len(mine) - 3)}"
        yield plain(checkpoint), REPORT, plain(told_of), "", "see report.html"
    for (checkpoint, reason), forms in unjudged(changes).items():
        told.add(checkpoint)
        some = _ways(forms) if len(forms) > 1 else ""
        yield plain(checkpoint), NOT_JUDGED, plain(reason) + some, "", ""
    for checkpoint in dict.fromkeys(change.checkpoint for change in changes):
        if checkpoint not in told:
            alike = [each for each in changes if each.checkpoint == checkpoint]
            folded = sum(each.folded for each in alike)
            note = f"; {folded} containers and class names differ" if folded else ""
            told_of = f"{UNCHANGED} in {len(alike)} ways of loading{note}"
            yield plain(checkpoint), "", told_of, "", ""


def _improved(facts: Sequence[Fact], before: str, after: str) -> Iterator[Row]:
    """What got better, about which there is nothing to do: a row for all its checkpoints."""
    alike: dict[tuple[str, ...], list[Fact]] = {}
    for fact in facts:
        key = (fact.impact, fact.what(after), right_in_words(fact.right, before, after))
        alike.setdefault(key, []).append(fact)
    for (impact, what, right), group in alike.items():
        names = list(dict.fromkeys(fact.checkpoint for fact in group))
        forms = list(dict.fromkeys(form for fact in group for form in fact.forms))
        first = f"{plain(names[0])}{_more(len(names) - 1)}"
        yield first, impact, what + _ways(forms), right, NOTHING


def _ways(forms: Sequence[str]) -> str:
    return f" [{', '.join(forms[:3])}{_more(len(forms) - 3)}]"


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""
