"""`junit.xml`: the form that CI systems read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from conformance.records import DIVERGE, ERROR, KNOWN, SKIP, Result
from conformance.report.explanation import explanation
from conformance.report.plain import plain, plain_lines

ELEMENTS = {DIVERGE: "failure", ERROR: "error", SKIP: "skipped", KNOWN: "system-out"}


def write_junit(path: Path, results: Sequence[Result], name: str) -> None:
    """A test case a result; a known deviation passes, and says so in its output."""
    count = {status: sum(r.status == status for r in results) for status in ELEMENTS}
    suite = ElementTree.Element(
        "testsuite",
        name=plain(name),
        tests=str(len(results)),
        failures=str(count[DIVERGE]),
        errors=str(count[ERROR]),
        skipped=str(count[SKIP]),
        time=f"{sum(result.seconds for result in results):.3f}",
    )
    for result in results:
        suite.append(_testcase(result))
    tree = ElementTree.ElementTree(suite)
    ElementTree.indent(tree)
    tree.write(path, encoding="utf-8", xml_declaration=True)


def _testcase(result: Result) -> ElementTree.Element:
    stage = result.case.partition("/")[0]
    case = ElementTree.Element(
        "testcase",
        name=plain(result.case),
        classname=plain(f"conformance.{stage}"),
        time=f"{result.seconds:.3f}",
    )
    if result.status in ELEMENTS:
        element = ElementTree.SubElement(case, ELEMENTS[result.status])
        text = f"known deviation {result.deviation}: {result.reason}"
        if result.status != KNOWN:
            broken = ", ".join(dict.fromkeys(d.clause for d in result.divergences))
            element.set("message", plain(broken or result.reason))
            text = "\n".join(explanation(result))
        element.text = plain_lines(text)
    return case
