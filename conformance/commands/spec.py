"""`conformance spec`: show a clause, a stage or a known deviation; render docs/spec.md."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable, Iterator

from conformance.cases.catalogue import CASES
from conformance.commands.arguments.shared import UsageError
from conformance.deviations import Deviation, bugs, deviations
from conformance.results.impacts import IMPACTS
from conformance.spec import STAGES, Clause, clauses

SUGGESTIONS = 5


class UnknownWord(ValueError):
    """The word names no clause, no stage and no deviation; the message lists near matches."""


def run(options: argparse.Namespace) -> int:
    """Run `conformance spec`: show a clause, a stage or a deviation; the exit code."""
    if options.word:
        try:
            text = describe(options.word) + "\n"
        except UnknownWord as error:
            raise UsageError(str(error)) from error
    elif options.format == "markdown":
        text = as_markdown()
    elif options.format == "bugs":
        text = bugs.as_markdown()
    else:
        text = "".join(f"{c.id:<7} {c.level:<8} {c.title}\n" for c in clauses().values())
    if options.out:
        options.out.write_text(text, "utf-8")
    else:
        sys.stdout.write(text)
    return 0


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
    raise UnknownWord(f"no clause, stage or deviation is named {word!r}; {_near_words(word)}")


def listing(shown: Iterable[Clause]) -> Iterator[str]:
    """The specification as lines, one a clause: id, level, title."""
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
        f"cases:  {', '.join(_cases_of(clause))}",
    ]
    for deviation in _deviations_of(clause):
        about = f"{deviation.impact}, transformers {deviation.releases}"
        lines += ["", f"known deviation {deviation.id} ({about})"]
        lines.append(f"  {deviation.reason}")
    return "\n".join(lines)


def as_markdown() -> str:
    """The page `docs/spec.md`: all clauses, as `make docs` renders it."""
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
    """A clause on `docs/spec.md`: its sentence, level and source, then the rest in a fold."""
    names, known = _cases_of(clause), _deviations_of(clause)
    yield f"### {clause.id} {clause.title}"
    yield ""
    yield clause.statement
    yield ""
    yield f"Level: `{clause.level}`. Source: {clause.source}."
    yield ""
    fold = _counted_noun(len(names), "case")
    if known:
        fold += f", {_counted_noun(len(known), 'known deviation')}"
    yield f"<details><summary>{fold}</summary>"
    yield ""
    yield f"Cases: {', '.join(f'`{name}`' for name in names)}."
    for deviation in known:
        yield ""
        yield (
            f"Known deviation `{deviation.id}` ({deviation.impact}, transformers "
            f"`{deviation.releases}`): "
            f"{deviation.reason} Upstream: {deviation.upstream}."
        )
    yield ""
    yield "</details>"


def _deviation_page(deviation: Deviation) -> Iterator[str]:
    """What `conformance spec` shows of a known deviation."""
    clause = clauses()[deviation.clause]
    yield f"{deviation.id}: known deviation from {clause.id}"
    yield ""
    yield deviation.reason
    yield ""
    yield f"impact:   {deviation.impact} ({IMPACTS[deviation.impact].meaning})"
    yield f"releases: transformers {deviation.releases}"
    yield f"upstream: {deviation.upstream}"
    yield f"kinds:    {', '.join(deviation.kinds)}"
    yield f"cases:    {', '.join(deviation.cases)}"
    yield f"clause:   {clause.id} ({clause.level}): {clause.title}"
    yield f"          {clause.statement}"


def _near_words(word: str) -> str:
    """Names that look like an unknown word, then clauses with it in their title: a hint."""
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


def _counted_noun(number: int, noun: str) -> str:
    """A number with its noun, as `conformance spec` counts cases and deviations."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _deviations_of(clause: Clause) -> list[Deviation]:
    """The known deviations from a clause, for its page."""
    return [deviation for deviation in deviations() if deviation.clause == clause.id]


def _cases_of(clause: Clause) -> list[str]:
    """The ids of the cases that cite a clause, for its page."""
    return [case.id for case in CASES if clause.id in case.clauses]
