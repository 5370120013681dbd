"""The clauses as text for the terminal and as `docs/spec.md`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from conformance.cases.catalogue import CASES
from conformance.deviations import Deviation, deviations
from conformance.spec import STAGES, Clause, clauses

SUGGESTIONS = 5


class UnknownWord(ValueError):
    """The word names no clause, no stage and no deviation; the message lists near matches."""


def describe(word: str) -> str:
    """What the specification says about a clause, a stage or a deviation, in any case of letters.

    Args:
        word: an id such as `TIE-1`, a stage such as `TIE`, or a deviation such as
            `stray-duplicate-wins`.

    Returns:
        Lines of text without a line break at the end.

    Raises:
        UnknownWord: there is none of that name.

    Example:
        >>> print(describe("mem").splitlines()[0])
        MEM: Memory
    """
    upper = word.upper()
    if upper in clauses():
        return as_text(clauses()[upper])
    if upper in STAGES:
        of_stage = [clause for clause in clauses().values() if clause.stage == upper]
        return "\n".join([f"{upper}: {STAGES[upper]}", "", *listing(of_stage)])
    for deviation in deviations():
        if deviation.id == word.lower():
            return "\n".join(_deviation_page(deviation))
    raise UnknownWord(f"no clause, stage or deviation is named {word!r}; {_hint(word)}")


def listing(shown: Iterable[Clause]) -> Iterator[str]:
    """A line a clause: id, level, title."""
    for clause in shown:
        yield f"{clause.id:<7} {clause.level:<8} {clause.title}"


def as_text(clause: Clause) -> str:
    """One clause with its cases and known deviations, for the terminal."""
    lines = [
        f"{clause.id}: {clause.title}",
        "",
        clause.statement,
        "",
        f"level:  {clause.level}",
        f"source: {clause.source}",
        f"cases:  {', '.join(_cases(clause))}",
    ]
    for deviation in _deviations(clause):
        lines += ["", f"known deviation {deviation.id} (transformers {deviation.releases})"]
        lines.append(f"  {deviation.reason}")
    return "\n".join(lines)


def as_markdown() -> str:
    """All clauses as one page, rendered by `make docs`."""
    lines = [
        "# The specification of `from_pretrained`",
        "",
        "Rendered by `make docs` from `conformance/spec/*.toml`; do not edit. The key words MUST, "
        "MUST NOT, SHOULD and SHOULD NOT are those of RFC 2119. Level `must`: documentation or "
        "correctness requires it. Level `should`: it is recommended. Level `observed`: the "
        "sentence says what the newest release does, and no documentation asks for it. "
        "`conformance spec ID` shows one clause, `conformance check --clause ID` runs its cases.",
    ]
    for stage, about in STAGES.items():
        lines += ["", f"## {stage}: {about}"]
        for clause in clauses().values():
            if clause.stage == stage:
                lines += ["", *_clause_lines(clause)]
    return "\n".join(lines) + "\n"


def _clause_lines(clause: Clause) -> Iterator[str]:
    """The sentence, then level and source, then the rest in a fold."""
    names, known = _cases(clause), _deviations(clause)
    yield f"### {clause.id} {clause.title}"
    yield ""
    yield clause.statement
    yield ""
    yield f"Level: `{clause.level}`. Source: {clause.source}."
    yield ""
    fold = _count(len(names), "case")
    if known:
        fold += f", {_count(len(known), 'known deviation')}"
    yield f"<details><summary>{fold}</summary>"
    yield ""
    yield f"Cases: {', '.join(f'`{name}`' for name in names)}."
    for deviation in known:
        yield ""
        yield (
            f"Known deviation `{deviation.id}` (transformers `{deviation.releases}`): "
            f"{deviation.reason} Upstream: {deviation.upstream}."
        )
    yield ""
    yield "</details>"


def _deviation_page(deviation: Deviation) -> Iterator[str]:
    clause = clauses()[deviation.clause]
    yield f"{deviation.id}: known deviation from {clause.id}"
    yield ""
    yield deviation.reason
    yield ""
    yield f"releases: transformers {deviation.releases}"
    yield f"upstream: {deviation.upstream}"
    yield f"kinds:    {', '.join(deviation.kinds)}"
    yield f"cases:    {', '.join(deviation.cases)}"
    yield f"clause:   {clause.id} ({clause.level}): {clause.title}"
    yield f"          {clause.statement}"


def _hint(word: str) -> str:
    """Names that look like the word, then clauses with the word in their title."""
    names = [*clauses(), *STAGES, *(deviation.id for deviation in deviations())]
    spelled = {name.lower(): name for name in names}
    near = difflib.get_close_matches(word.lower(), spelled, SUGGESTIONS, cutoff=0.7)
    found = [spelled[name] for name in near] or [
        f"{clause.id} ({clause.title})"
        for clause in clauses().values()
        if word and word.lower() in clause.title.lower()
    ][:SUGGESTIONS]
    if not found:
        return "`conformance spec` lists the clauses"
    return f"did you mean {', '.join(found)}?"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _deviations(clause: Clause) -> list[Deviation]:
    return [deviation for deviation in deviations() if deviation.clause == clause.id]


def _cases(clause: Clause) -> list[str]:
    return [case.id for case in CASES if clause.id in case.clauses]
