"""SAV: what a loaded model writes when it is saved."""

from __future__ import annotations

from conformance.judge.checks.evidence import pairs_equal

names = pairs_equal("SAV-1")
values = pairs_equal("SAV-2")
dtypes = pairs_equal("SAV-3")
shards = pairs_equal("SAV-4")
