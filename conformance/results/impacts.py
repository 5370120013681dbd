"""What a divergence does to its user: the impacts, gravest first, and the default of each kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

WRONG_MODEL, FAILS, UNSAFE = "wrong-model", "fails", "unsafe"
ACCEPTS_BAD, RESOURCES, REPORT = "accepts-bad", "resources", "report"


@dataclass(frozen=True)
class Impact:
    """In words.

    Attributes:
        counted: what follows the number of cases: `41 can give a wrong model`.
        meaning: one line for a heading or a legend.
    """

    counted: str
    meaning: str


IMPACTS = {
    WRONG_MODEL: Impact(
        "can give a wrong model", "silently other weights, dtypes, ties, outputs or defaults"
    ),
    FAILS: Impact(
        "fail good checkpoints", "a good checkpoint does not load, or the loaded model does not run"
    ),
    UNSAFE: Impact("unsafe", "opens or runs what it must not"),
    ACCEPTS_BAD: Impact("accept bad input", "bad input passes, and the model is of no use"),
    RESOURCES: Impact("resources", "memory, time, files, threads or the state of the process"),
    REPORT: Impact("report", "loading info, error message or type, container"),
}

# Kind of divergence to the impact that it has unless a known deviation says otherwise.
OF_KIND = {
    "values": WRONG_MODEL,
    "dtype": WRONG_MODEL,
    "shape": WRONG_MODEL,
    "tie": WRONG_MODEL,
    "requires_grad": WRONG_MODEL,
    "kind-of-tensor": WRONG_MODEL,
    "training": WRONG_MODEL,
    "output": WRONG_MODEL,
    "gradient": WRONG_MODEL,
    "order": WRONG_MODEL,  # the state of an optimiser goes by it
    "module": WRONG_MODEL,  # a hook, an attribute, a shared config
    "generation-config": WRONG_MODEL,  # other tokens
    "rejected": FAILS,
    "crash": FAILS,  # the process ends
    "hang": FAILS,
    "exit": FAILS,  # SystemExit and the like, which end the process too
    "no-model": FAILS,
    "use": FAILS,  # what a user does with a model does not do it
    "device": FAILS,  # left on meta, or not where the forward looks for it
    "secret": UNSAFE,  # told to whoever reads the log
    "accepted": ACCEPTS_BAD,
    "state": RESOURCES,
    "stride": RESOURCES,
    "missing": REPORT,
    "unexpected": REPORT,
    "mismatched": REPORT,
    "config": REPORT,
    "device-map": REPORT,
    "log": REPORT,
    "type": REPORT,
    "exception": REPORT,
    "message": REPORT,
}


def of_kind(kind: str) -> str:
    """The default impact of a kind of divergence; `report` for one that is not in the table."""
    return OF_KIND.get(kind, REPORT)


def rank(impact: str | None) -> int:
    """The rank of an impact: the smaller, the graver; an unknown one after all known, None last."""
    if impact is None:
        return len(IMPACTS) + 1
    return list(IMPACTS).index(impact) if impact in IMPACTS else len(IMPACTS)


def gravest(impacts: Iterable[str]) -> str | None:
    """The gravest of the impacts; None of none."""
    return min(impacts, key=rank, default=None)


def counted(impacts: Iterable[str | None]) -> str:
    """`41 can give a wrong model, 12 fail good checkpoints`, gravest first."""
    count = Counter(impacts)
    return ", ".join(
        f"{count[name]} {impact.counted}" for name, impact in IMPACTS.items() if count[name]
    )
