"""STA: the process afterwards."""

from __future__ import annotations

from conformance.case import Case

CASES = [
    Case("sta/success", ("STA-1",), "llama-bf16-2"),
    Case("sta/success-missing", ("STA-1",), faults=("missing-head",)),
]
