"""The first screen of `compare` on own checkpoints: what changes, who is right, what to do.

A checkpoint is loaded in many ways, and one cause shows in most of them: what differs alike is one
row, with the number of the ways.
"""

from __future__ import annotations

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
from conformance.results.impacts import REPORT, of_kind, rank
from conformance.results.name_patterns import grouped
from conformance.results.records import Divergence
from conformance.results.text import plain

# What explains most comes first; what follows from it is left out where it is of the same tensor.
TELLING = (
    *("rejected", "accepted", RENAMED, "missing", "tie", "dtype", "shape", "kind-of-tensor"),
    *("values", "requires_grad", "device", "device-map", "mismatched", "unexpected", "training"),
    *("generation-config", "output", "config", "state", "exception", "message", "stride"),
)
DIGESTS = ("values", "state")
DTYPE_FIELDS = ("dtype", "torch_dtype")
CAUSES = {"dtype", "values", "missing", "rejected"}
FOLLOWS = {"values": ("dtype", "shape", "tie"), "stride": ("shape", "dtype"), "shape": ("tie",)}

# What to do about a difference of each kind.
ADVICE = {
    "rejected": "stay with {before} for this checkpoint, or convert it: see the message",
    "accepted": "check the checkpoint with `conformance explain --check`",
    RENAMED: "use the new names in code that reads state_dict() or named_modules()",
    "missing": "rename the stored keys, or pass key_mapping: these weights are random now",
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
ANY = "read the clause: `conformance spec {clause}`"


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
            "missing": f"missing keys: {new} (were {old})",
            "tie": f"{place} shares memory with {new} (was {old})",
            "output": f"outputs differ: {self.example.detail or place}",
            "rejected": f"{after} does not load it: {new}",
        }.get(self.kind, f"{self.kind} of {place}: {old} → {new}")
        if self.kind == "rejected" and new == "a model":
            text = f"{after} loads it; before: {old}"
        return plain(text)

    def advice(self, before: str) -> str:
        """What its owner can do."""
        if self.kind == "rejected" and self.example.actual == "a model":
            return "nothing"
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
            impact = each.impact or of_kind(each.kind)
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


def _gravity(fact: Fact) -> tuple[int, int, int]:
    """Impact first; then what the specification calls wrong; then what explains most."""
    telling = TELLING.index(fact.kind) if fact.kind in TELLING else len(TELLING)
    return rank(fact.impact), fact.right == SECOND, telling


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
        if not follows:
            yield each


def right_in_words(right: str, before: str, after: str) -> str:
    """Which release keeps to the specification, for a column."""
    words = {FIRST: before, SECOND: after, BOTH: "both", NEITHER: "neither"}
    return words.get(right, "not judged")


def unjudged(changes: Iterable[Change]) -> dict[tuple[str, str], list[str]]:
    """Of what was not judged: checkpoint and reason, to the ways of loading."""
    found: dict[tuple[str, str], list[str]] = {}
    for change in changes:
        if change.change == NOT_JUDGED:
            key = (change.checkpoint, change.reason)
            found.setdefault(key, []).append(change.case.rpartition("/")[2])
    return found


def own_table(changes: Sequence[Change]) -> Table:
    """A row for each thing that changes in each checkpoint, then a row for each that does not."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("checkpoint", "impact", "what changes", "right", "what to do"):
        table.add_column(name, ratio={"what changes": 5, "what to do": 3}.get(name))
    for row in own_rows(changes):
        table.add_row(*map(Text, row))
    return table


def own_rows(changes: Sequence[Change]) -> Iterator[tuple[str, str, str, str, str]]:
    """Checkpoint, impact, what changes, which release is right, and what to do."""
    if not changes:
        return
    before, after = changes[0].before, changes[-1].after
    told: set[str] = set()
    found = facts(changes)
    small = [fact for fact in found if fact.impact == REPORT and fact.kind not in NEWS]
    for fact in [fact for fact in found if fact not in small]:
        ways = f" [{', '.join(fact.forms[:3])}{_more(len(fact.forms) - 3)}]"
        told.add(fact.checkpoint)
        advice = f"accepted: {fact.accepted}" if fact.accepted else fact.advice(before)
        yield (
            *(plain(fact.checkpoint), fact.impact, fact.what(after) + ways),
            *(right_in_words(fact.right, before, after), plain(advice)),
        )
    for checkpoint in dict.fromkeys(fact.checkpoint for fact in small):
        told.add(checkpoint)
        mine = [f"{each.kind} of {each.example.where}" for each in small]
        mine = [w for w, each in zip(mine, small, strict=True) if each.checkpoint == checkpoint]
        told_of = f"{', '.join(dict.fromkeys(mine[:3]))}{_more(len(mine) - 3)}"
        yield plain(checkpoint), REPORT, plain(told_of), "", "see report.html"
    for (checkpoint, reason), forms in unjudged(changes).items():
        told.add(checkpoint)
        some = f" [{', '.join(forms[:3])}{_more(len(forms) - 3)}]" if len(forms) > 1 else ""
        yield plain(checkpoint), NOT_JUDGED, plain(reason) + some, "", ""
    for checkpoint in dict.fromkeys(change.checkpoint for change in changes):
        if checkpoint not in told:
            alike = [each for each in changes if each.checkpoint == checkpoint]
            folded = sum(each.folded for each in alike)
            note = f"; {folded} containers and class names differ" if folded else ""
            told_of = f"{UNCHANGED} in {len(alike)} ways of loading{note}"
            yield plain(checkpoint), "", told_of, "", ""


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""
