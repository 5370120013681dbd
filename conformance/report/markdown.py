"""A run as a comment on a pull request: GitHub's Markdown, within GitHub's limit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from conformance.judge.changes import CHANGED, NOT_JUDGED, REGRESSED, Change
from conformance.report.badge import summary
from conformance.report.explanation import explanation
from conformance.report.sheet import columns
from conformance.report.stored_run import Report
from conformance.report.tables.change_table import costs, news, notes, rows, what_of
from conformance.report.tables.own_table import own_rows
from conformance.report.tally import ENDINGS, ORDER, SYMBOLS, breaches, by_impact
from conformance.results.records import AGREE, DIVERGE, ERROR
from conformance.results.text import plain
from conformance.spec import clauses

# GitHub takes 65,536 characters; what is around the comment needs some of them.
MOST_BYTES = 60_000
# Of these, what one table or list may take from the others.
PART_BYTES = 10_000
WIDEST = 300
LONGEST = 4_000
BAR = r"\|"
MARGIN = 100  # for the line that says how much there is more


def comment(report: Report, foot: Sequence[str] = ()) -> str:
    """The comment in Markdown: summary first, details folded, at most `MOST_BYTES` of UTF-8.

    Args:
        report: of `check` or `compare`.
        foot: lines that the report does not hold, such as unused entries of an accept file.
    """
    parts = [_comment_head(report), _environments(report)]
    parts += (
        [_changed_clauses(report), _own_checkpoints(report)]
        if report.steps
        else [_broken_clauses(report)]
    )
    told = notes(report.changes)
    parts += [
        "\n".join(_blocks_that_fit([f"- {code(line)}" for line in [*told, *foot]], PART_BYTES))
    ]
    blocks = [*filter(None, parts), *_folded_details(report)]
    return "\n\n".join(_blocks_that_fit(blocks, MOST_BYTES - MARGIN, "\n\n")) + "\n"


def code(value: object, most: int = WIDEST) -> str:
    """A code span of the Markdown comment: no name becomes markup or a mention."""
    text = plain(value, most)
    if not text.strip():
        return ""
    fence = "`" * (_longest_run(text) + 1)
    pad = " " if "`" in (text[0], text[-1]) or text[0] == text[-1] == " " else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _longest_run(text: str) -> int:
    """The longest run of backticks in a text for the Markdown comment."""
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _bytes_of(text: str) -> int:
    """Bytes that a text takes of the comment's limit."""
    return len(text.encode("utf-8"))


def _blocks_that_fit(blocks: Sequence[str], most: int, between: str = "\n") -> Iterator[str]:
    """The blocks of the comment for which there is room, and how many there were more."""
    used = 0
    for number, block in enumerate(blocks):
        used += _bytes_of(block) + len(between)
        if used > most:
            yield f"… and {len(blocks) - number} more in `report.html`"
            return
        yield block


def _markdown_table(
    titles: Sequence[str], lines: Iterable[Sequence[str]], most: int = PART_BYTES
) -> str:
    """A Markdown table of cells that are Markdown already, in which no bar opens a new one."""
    top, *body = (
        f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |" for cells in [titles, *lines]
    )
    if not body:
        return ""
    head = [top, "|" + "---|" * len(titles)]
    *kept, last = _blocks_that_fit(body, most)
    # The line on what is left out stands below the table, not as a row of one cell.
    return "\n".join([*head, *kept, last if last.startswith("| ") else f"\n{last}"])


def _with_symbol(word: str) -> str:
    """A status or a change with its symbol, in the comment."""
    return f"{SYMBOLS[word]} {word}"


def _comment_head(report: Report) -> str:
    """The head of the comment: targets, summary, exit code, impacts."""
    exit_code = report.footer["exit_code"]
    names = " → ".join(map(code, report.targets))
    ending = ENDINGS.get(exit_code, ENDINGS[2])[0]
    head = f"### conformance: {names}\n\n**{summary(report)}** – exit {exit_code}, {ending}"
    impacts = [] if report.steps else by_impact([result for run in report.runs for result in run])
    return "\n\n".join([head, *impacts])


def _environments(report: Report) -> str:
    """The comment on packages in which targets differ; of one target, on those that matter most."""
    several = len(report.targets) > 1
    lines = []
    for package in report.environments[0]:
        held = [str(versions.get(package)) for versions in report.environments]
        if not several or len(set(held)) > 1:
            lines.append([code(package), *map(code, held)])
    return _markdown_table(["environment", *map(code, report.targets)], lines) or (
        "The environments hold the same versions."
    )


def _changed_clauses(report: Report) -> str:
    """The comment on a comparison: a row a clause that changed; a table a step."""
    known = clauses()
    tables = []
    for column in columns(report):
        changes = [entry for entry in column.entries.values() if isinstance(entry, Change)]
        table = _markdown_table(
            ["", "impact", "clause", "promise", "what", "cases"],
            [
                [
                    *(_with_symbol(row.change), row.impact, code(row.clause)),
                    known[row.clause].title if row.clause in known else "",
                    *(code(row.what), str(len(row.cases))),
                ]
                for row in rows(changes)
            ],
            2 * PART_BYTES,
        )
        if column.is_step:
            head = f"{code(column.name)}\n\n" if len(report.steps) > 1 else ""
            tables.append(head + (table or "No clause regressed, changed or was fixed."))
    return "\n\n".join(tables)


def _own_checkpoints(report: Report) -> str:
    """The comment on the user's checkpoints: what changes for each, then every way of loading."""
    own = [change for change in report.changes if change.checkpoint]
    steps = dict.fromkeys((change.before, change.after) for change in own)
    tables = [
        _markdown_table(
            ["checkpoint", "impact", f"what changes, {' → '.join(map(code, step))}", "right", "do"],
            [
                [code(name), impact, code(what), *(code(each) if each else "" for each in rest)]
                for name, impact, what, *rest in own_rows(
                    [each for each in own if (each.before, each.after) == step]
                )
            ],
        )
        for step in steps
    ]
    every = _markdown_table(
        ["checkpoint", "change", "seconds", "peak memory", "what"],
        [
            [code(change.case), _change_word(change), *costs(change), code(what_of(change))]
            for change in own
        ],
    )
    return "\n\n".join([*tables, every])


def _change_word(change: Change) -> str:
    """A change with its symbol in the comment, and whether it is accepted."""
    return _with_symbol(change.change) + (", accepted" if change.accepted else "")


def _broken_clauses(report: Report) -> str:
    """The comment on a `check`: a row a clause that a case breaks, the gravest impact first."""
    known, lines = clauses(), []
    results = [result for run in report.runs for result in run]
    for each in breaches(results):
        count = Counter(each.cases.values())
        told = ", ".join(f"{SYMBOLS[word]} {count[word]} {word}" for word in ORDER if count[word])
        title = known[each.clause].title if each.clause in known else ""
        names = ", ".join(map(code, each.deviations))
        lines.append([each.impact, code(each.clause), title, told, names])
    if all(result.status == AGREE for result in results):
        return "Every case agrees."
    return _markdown_table(["impact", "clause", "promise", "cases", "known deviations"], lines)


def _folded_details(report: Report) -> Iterator[str]:
    """The comment's details: what is unexpected or changed in full, the worst first."""
    for word in (NOT_JUDGED, REGRESSED, CHANGED):
        for change in report.changes:
            if change.change == word and not change.accepted:
                yield _folded(change.case, word, news(change))
    for word in (ERROR, DIVERGE):
        for result in [] if report.steps else report.runs[0]:
            if result.status == word:
                yield _folded(result.case, word, explanation(result))


def _folded(case: str, word: str, lines: Sequence[str]) -> str:
    """A case's details in the comment, folded."""
    text = "\n".join(plain(line, WIDEST) for line in lines[:-1])[:LONGEST]
    text = f"{text}\n{plain(lines[-1], LONGEST)}"  # the line that reruns it, whole
    fence = "`" * max(3, _longest_run(text) + 1)
    title = f"<code>{escape(plain(case, WIDEST))}</code> {_with_symbol(word)}"
    return f"<details><summary>{title}</summary>\n\n{fence}text\n{text}\n{fence}\n\n</details>"
