"""STA: the state of the process."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.judge.checks.evidence import Evidence, check
from conformance.results.records import Divergence
from conformance.world.threads import how_it_differs


@check("STA-3", of_failed_loads=True)
def threads_as_alone(seen: Evidence) -> Iterator[Divergence]:
    """Of several loads at once each leaves what the load alone leaves; the first that differs."""
    for thread in seen.observation.threads:
        told, where = how_it_differs(thread), "thread {thread} of {of}".format(**thread)
        if told and thread["raised"]:
            yield Divergence("rejected", where, "a model", told)
        elif told:
            yield Divergence("values", where, "the model loaded alone", told)
        if told:
            return


@check("STA-4")
def takes_gradients(seen: Evidence) -> Iterator[Divergence]:
    """No parameter was made in the inference mode of the caller."""
    for name, facts in seen.parameters().items():
        if facts["inference"]:
            yield Divergence("requires_grad", name, "takes gradients", "an inference tensor")
