"""`report.html`: one page that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from itertools import chain
from typing import Any

from markupsafe import Markup

from conformance.judge.changes import Change
from conformance.report.details import details
from conformance.report.sheet import (
    Column,
    by_gravity,
    cases,
    clauses_of,
    columns,
    impact_of_case,
    word_of,
)
from conformance.report.stored_run import Report
from conformance.report.tables.change_table import Row, costs, notes, rows, what_of
from conformance.report.tally import ENDINGS, SYMBOLS, Met, met
from conformance.report.templating import template, text
from conformance.results.impacts import IMPACTS
from conformance.results.text import plain
from conformance.spec import STAGES, clauses


def page(report: Report) -> str:
    """The page `report.html`; equal reports give equal pages."""
    sheet = columns(report)
    code = report.footer["exit_code"]
    style, script = (Markup(text(name)) for name in ("report.css", "report.js"))
    return template("report.html.j2").render(
        style=style,
        script=script,
        script_hash=script_hash(script),
        style_hash=script_hash(style),
        title=_page_title(report),
        header=_plain_header(report.header),
        finished=plain(report.footer["finished"]),
        exit_code=code,
        ending=ENDINGS.get(code, ENDINGS[2]),
        environments=list(_environments(report)),
        targets=[plain(target) for target in report.targets],
        columns=sheet,
        news=[(column, _change_rows(column)) for column in sheet if column.is_step],
        own=[
            (change, *costs(change), what_of(change)) for change in _own_checkpoints_changes(report)
        ],
        notes=notes(report.changes),
        met=_impacts_met(report, sheet),
        impacts=IMPACTS,
        deviations=_deviations_by_cases(sheet),
        matrix=_clause_matrix(sheet),
        titles={clause.id: clause.title for clause in clauses().values()},
        words=dict.fromkeys(word for column in sheet for word, _ in column.counts()),
        word_of=word_of,
        abouts=STAGES,
        stages=_stages(sheet),
        cases=[_case_row(case, sheet) for case in by_gravity(sheet)],
        symbols=SYMBOLS,
        data=details(sheet),
    )


def script_hash(script: str) -> str:
    """The hash by which `report.html` allows its own script and style, and no other."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return f"sha256-{digest}"


def _plain_header(value: Any) -> Any:
    """The header's fields for `report.html`, made safe to show."""
    if isinstance(value, dict):
        return {plain(key): _plain_header(inner) for key, inner in value.items()}
    return [_plain_header(inner) for inner in value] if isinstance(value, list) else plain(value)


def _page_title(report: Report) -> str:
    """The title of `report.html`."""
    if report.steps:
        return " → ".join(map(plain, report.targets))
    return f"{plain(report.header['loader'])} in {plain(report.targets[0])}"


def _environments(report: Report) -> Iterator[tuple[str, list[str], bool]]:
    """For `report.html`: package, its version in each target, whether these differ; those first."""
    packages = dict.fromkeys(chain.from_iterable(report.environments))
    held = {
        package: [plain(versions.get(package)) for versions in report.environments]
        for package in packages
    }
    for differ in (True, False):
        for package, versions in held.items():
            if (len(set(versions)) > 1) == differ:
                yield plain(package), versions, differ


def _own_checkpoints_changes(report: Report) -> list[Change]:
    """The changes of the user's checkpoints, for `report.html`."""
    return [change for change in report.changes if change.case.startswith("own/")]


def _change_rows(column: Column) -> list[Row]:
    """The rows of changes on `report.html`, of one column."""
    return rows(entry for entry in column.entries.values() if isinstance(entry, Change))


def _impacts_met(report: Report, sheet: list[Column]) -> list[tuple[str, int, list[Met]]]:
    """Of `check`, for `report.html`: impact, how many cases have it as gravest, what was met."""
    if report.steps or not report.runs:
        return []
    count = dict(sheet[0].impacts())
    found = met(report.runs[0])
    return [
        (impact, count.get(impact, 0), held)
        for impact in IMPACTS
        if (held := [each for each in found if each.impact == impact])
    ]


def _deviations_by_cases(sheet: list[Column]) -> list[tuple[str, int]]:
    """For `report.html`: id of each known deviation, to how many cases it is seen in."""
    seen: dict[str, set[str]] = {}
    for column in sheet:
        for case, entry in column.entries.items():
            for each in entry.deviations:
                seen.setdefault(plain(each.id), set()).add(case)
    return sorted((name, len(held)) for name, held in seen.items())


def _clause_matrix(sheet: list[Column]) -> dict[str, list[dict[str, Any]]]:
    """The matrix of `report.html`: stage to a row for each clause that a case says something of."""
    cited = {clause for case in cases(sheet) for clause in clauses_of(case, sheet)}
    known = [clause for clause in clauses() if clause in cited]
    found: dict[str, list[dict[str, Any]]] = {}
    for identifier in [*known, *sorted(cited - set(known))]:
        stage = plain(identifier.partition("-")[0])
        found.setdefault(stage, []).append(_clause_row(identifier, sheet))
    return found


def _clause_row(identifier: str, sheet: list[Column]) -> dict[str, Any]:
    """A clause's row in the matrix of `report.html`."""
    clause = clauses().get(identifier)
    return {
        "id": plain(identifier),
        "level": clause.level if clause else "",
        "title": clause.title if clause else "a clause that no longer exists",
        "cells": [(column, column.counts_of(identifier)) for column in sheet],
    }


def _stages(sheet: list[Column]) -> dict[str, str]:
    """The stages on `report.html`: first part of a case's id to what the stage is about."""
    names = dict.fromkeys(plain(case).partition("/")[0] for case in cases(sheet))
    return {name: STAGES.get(name.upper(), "") for name in names}


def _case_row(case: str, sheet: list[Column]) -> dict[str, Any]:
    """What the list on `report.html` shows of a case, and what it is found by."""
    entries = [(column, column.entries.get(case)) for column in sheet]
    named = [plain(d.id) for _, entry in entries if entry is not None for d in entry.deviations]
    return {
        "id": plain(case),
        "stage": plain(case).partition("/")[0],
        "clauses": [plain(clause) for clause in clauses_of(case, sheet)],
        "deviations": list(dict.fromkeys(named)),
        "impact": impact_of_case(case, sheet) or "",
        "tokens": [token for column in sheet for token in column.tokens(case)],
        "cells": entries,
    }
