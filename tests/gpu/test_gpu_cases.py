"""The catalogue on a GPU: stock agrees with the reference, or its deviation is known."""

from __future__ import annotations

import pytest

from conformance.cases.case import Case
from conformance.cases.catalogue import catalogue
from conformance.judge.session import Session, judge
from conformance.report.explanation import explanation
from conformance.results.records import AGREE, KNOWN, SKIP

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("case", catalogue("cuda"), ids=lambda case: case.id)
def test_stock_is_as_expected_on_a_gpu(case: Case, on_the_gpu: Session) -> None:
    """Every tensor, its device, ties, hooks' map, buffers, logits, hidden states, tokens."""
    result = judge(case, on_the_gpu)
    if result.status == SKIP:
        pytest.skip(result.reason)
    assert result.status in (AGREE, KNOWN), "\n".join(explanation(result))
