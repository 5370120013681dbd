"""SAV: what was loaded can be saved."""

from __future__ import annotations

from conformance.judge.checks.evidence import pairs_equal

saved_names = pairs_equal("SAV-1")
saved_values = pairs_equal("SAV-2")
saved_ties = pairs_equal("SAV-3")
saved_shards = pairs_equal("SAV-4")
loaded_again = pairs_equal("SAV-5")
saved_config = pairs_equal("SAV-6")
nothing_lost = pairs_equal("SAV-7")
