"""MAP: which stored tensors make which parameter."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.judge.checks.evidence import Evidence, check
from conformance.judge.checks.stored import cast, files_of
from conformance.results.records import Divergence


@check("MAP-1", "DTY-7", "MIS-6")
def stored_bits(seen: Evidence) -> Iterator[Divergence]:
    """Each parameter that a file stores has the stored bits, cast once to the parameter's dtype."""
    parameters = seen.of_kind("parameter")
    dtypes = {name: facts["dtype"] for name, facts in parameters.items()}
    for path, keys in files_of(seen.case, seen.folder, dtypes).items():
        mine = {key: dtypes[key] for key in keys}
        for key, (shape, fingerprint) in cast(path, mine).items():
            facts = parameters[key]
            if shape != facts["shape"]:
                yield Divergence("shape", key, shape, facts["shape"])
            elif fingerprint != facts["fingerprint"]:
                yield Divergence("values", key, fingerprint, facts["fingerprint"])
