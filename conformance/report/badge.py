"""`badge.svg`: one line on a run, for a README; it asks no service."""

from __future__ import annotations

from collections import Counter
from html import escape

from conformance.judge.changes import UNCHANGED
from conformance.report.sheet import columns
from conformance.report.stored_run import Report
from conformance.report.tally import ENDINGS
from conformance.results.impacts import gravest
from conformance.results.records import AGREE

COLOURS = {"good": "#2d7d46", "warn": "#9a6700", "bad": "#b3261e"}

# Of a character of Verdana at 11 pixels, about; `textLength` makes the text fit where it is not so.
WIDTH = 6.6
PADDING = 12

SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{text}">
<title>{text}</title>
<rect width="{width}" height="20" rx="3" fill="#444c56"/>
<rect x="{left}" width="{right}" height="20" rx="3" fill="{colour}"/>
<rect x="{left}" width="4" height="20" fill="{colour}"/>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
<text x="6" y="14" textLength="{label_length}">{label}</text>
<text x="{message_at}" y="14" textLength="{message_length}">{message}</text>
</g>
</svg>
"""


def badge(report: Report) -> str:
    """The picture `badge.svg`: the counts of the run, in the colour of its exit code."""
    label, message = "conformance", summary(report)
    left, right = (round(len(text) * WIDTH) + PADDING for text in (label, message))
    return SVG.format(
        text=escape(f"{label}: {message}"),
        label=label,
        message=escape(message),
        left=left,
        right=right,
        width=left + right,
        label_length=left - PADDING,
        message_at=left + 6,
        message_length=right - PADDING,
        colour=COLOURS[ENDINGS.get(report.footer["exit_code"], ENDINGS[2])[1]],
    )


def summary(report: Report) -> str:
    """The badge's text: `409 cases, 12 known, 3 wrong-model`, or what a comparison's steps changed.

    The impact is the gravest that a case has, with the number of cases that have it.
    """
    sheet = columns(report)
    shown = [column for column in sheet if column.is_step] or sheet
    cases = {case for column in shown for case in column.entries}
    counts: dict[str, int] = {}
    for column in shown:
        for word, number in column.counts():
            counts[word] = counts.get(word, 0) + number
    told = [f"{number} {word}" for word, number in counts.items() if word not in (AGREE, UNCHANGED)]
    impacts = Counter(entry.impact for column in shown for entry in column.entries.values())
    worst = gravest(impact for impact in impacts if impact)
    told += [f"{impacts[worst]} {worst}"] if worst else []
    return ", ".join([f"{len(cases)} cases", *told])
