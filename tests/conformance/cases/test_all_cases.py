"""The whole catalogue: the installed transformers agrees, or its deviation is known."""

from __future__ import annotations

import pytest

from conformance.cases.case import Case
from conformance.cases.catalogue import CASES
from conformance.judge.session import Session, judge
from conformance.report.explanation import explanation
from conformance.results.records import AGREE, KNOWN

# Options in combination, and uses of a model; `make check` and `make check-plain` judge all.
LONG = ("combo/", "shape/", "use/")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.id, marks=[pytest.mark.slow] if case.id.startswith(LONG) else [])
        for case in CASES
    ],
)
def test_stock_is_as_expected(case: Case, session: Session) -> None:
    result = judge(case, session)

    assert result.status in (AGREE, KNOWN), "\n".join(explanation(result))
    assert (result.deviation is not None) == (result.status == KNOWN)
    assert result.digest
