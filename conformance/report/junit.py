"""`junit.xml`: the form that CI systems read."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from conformance.judge.changes import CHANGED, NOT_JUDGED, REGRESSED, REMOVED, Change
from conformance.report.explanation import explanation
from conformance.report.stored_run import Report
from conformance.report.tables.change_table import news
from conformance.results.records import DIVERGE, ERROR, KNOWN, SKIP, KnownDeviation, Result
from conformance.results.text import plain, plain_lines

FAILURE, OUTPUT = "failure", "system-out"
ELEMENTS = {DIVERGE: FAILURE, ERROR: "error", SKIP: "skipped", KNOWN: OUTPUT}
OF_CHANGE = {REGRESSED: FAILURE, CHANGED: FAILURE, NOT_JUDGED: "error", REMOVED: "skipped"}


def junit(report: Report) -> str:
    """The text of `junit.xml`: a suite a step, a test case a change; of `check`, one suite."""
    if report.steps:
        root = Element("testsuites")
        for step in report.steps:
            name = f"{step[0].before} to {step[0].after}"
            root.append(_suite_element(name, list(map(_change_element, step))))
    else:
        name = f"conformance of {report.header['loader']}"
        root = _suite_element(
            name, [_result_element(result) for run in report.runs for result in run]
        )
    ElementTree.indent(root)
    text: str = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _suite_element(name: str, cases: Sequence[Element]) -> Element:
    """A suite of `junit.xml`, with its counts."""

    def having(element: str) -> str:
        return str(sum(case.find(element) is not None for case in cases))

    suite = Element(
        "testsuite",
        name=plain(name),
        tests=str(len(cases)),
        failures=having("failure"),
        errors=having("error"),
        skipped=having("skipped"),
        time=f"{sum(float(case.get('time', 0)) for case in cases):.3f}",
    )
    suite.extend(cases)
    return suite


def _result_element(result: Result) -> Element:
    """A result in `junit.xml`: a known deviation passes, and says so in its output."""
    case = _testcase_element(result.case, result.seconds)
    if result.status == KNOWN:
        _add_element(case, OUTPUT, "\n".join(map(_known_text, result.deviations)))
    elif result.status in ELEMENTS:
        broken = ", ".join(dict.fromkeys(d.clause for d in result.divergences))
        text = "\n".join(explanation(result))
        _add_element(case, ELEMENTS[result.status], text, broken or result.reason, result.impact)
    return case


def _change_element(change: Change) -> Element:
    """A change in `junit.xml`: it fails unless it is accepted, known or not.

    An accepted change and a known deviation of the second target are written as output.
    """
    case = _testcase_element(change.case, sum(filter(None, change.seconds)))
    if change.change in OF_CHANGE and not change.accepted:
        broken = ", ".join(change.regressed or dict.fromkeys(d.clause for d in change.divergences))
        message = f"{change.change}: {broken or change.reason or change.change}"
        text = "\n".join(news(change))
        _add_element(case, OF_CHANGE[change.change], text, message, change.impact)
    known = f"known deviation {change.deviation} in {change.after}" if change.deviation else ""
    accepted = f"{change.change}, accepted: {change.accepted}" if change.accepted else ""
    if known or accepted:
        _add_element(case, OUTPUT, "\n".join(filter(None, (accepted, known))))
    return case


def _testcase_element(case: str, seconds: float) -> Element:
    """A test case of `junit.xml`."""
    stage = case.partition("/")[0]
    return Element(
        "testcase",
        name=plain(case),
        classname=plain(f"conformance.{stage}"),
        time=f"{seconds:.3f}",
    )


def _known_text(deviation: KnownDeviation) -> str:
    """A known deviation as a line in `junit.xml`."""
    link = deviation.upstream if deviation.upstream.startswith("https://") else ""
    impact = f" ({deviation.impact})" if deviation.impact else ""
    return f"known deviation {deviation.id}{impact}: {deviation.reason} {link}".rstrip(" :")


def _add_element(
    case: Element, name: str, text: str, message: str = "", impact: str | None = None
) -> None:
    """Add an element of `junit.xml` to a case; its `type`, which CI shows, is the impact."""
    element = ElementTree.SubElement(case, name)
    if impact:
        element.set("type", plain(impact))
    if message:
        element.set("message", plain(message))
    element.text = plain_lines(text)
