"""`docs/bugs.md`: what releases of transformers do wrong, the gravest first."""

from __future__ import annotations

from collections.abc import Sequence

from conformance.deviations import NONE_FOUND, Deviation, deviations
from conformance.results.impacts import IMPACTS

# No more in a cell; `conformance spec CLAUSE` names all.
MOST_CASES = 4

BAR = r"\|"

# A release that is in every range that is open at the top.
FAR = "1000"

HEAD = """\
# Bugs that loading had or has

Rendered by `make docs` from `conformance/deviations/*.toml`; do not edit. Every known difference
between transformers and the specification, by what it does to its user. `conformance check --case
ID` shows a case in the installed release, `conformance compare` in any two, and `conformance repro
ID --out DIR` makes a folder of it to paste into an issue. The releases rest on a run of the newest
patch of every minor release from 4.47 to 5.24 (torch 2.13.0, CPU): [releases.md](releases.md). In
each table those that the newest of them still has come first.
"""

FOOT = """\
## Seen by hand

In 4.57.6, offloading to a full disk ends in a bus error (on a tmpfs of 8 kB). Upstream: none found.

## In the reference, found by its own suite

Each is fixed and kept as a case: a header in UTF-16 was accepted; a PermissionError passed through;
a key that the index names twice was accepted; unescaped keys went into the log; a new file was read
with the old file's header; the BadZipFile error of a zip of two disks passed through; so did the
error of a sparse tensor in a pickle; under `torch.inference_mode` the parameters were inference
tensors.
"""


def as_markdown() -> str:
    """The page `docs/bugs.md`."""
    every = deviations()
    blocks = [HEAD, _bugs_by_impact(every)]
    for impact, about in IMPACTS.items():
        held = sorted((each for each in every if each.impact == impact), key=_is_over)
        table = [
            "| what happens | releases | caught by | upstream |",
            "|---|---|---|---|",
            *map(_bug_row, held),
        ]
        heading = f"## {impact}\n\n{about.meaning[0].upper()}{about.meaning[1:]}."
        blocks += [f"{heading}\n", "\n".join(table) + "\n"]
    return "\n".join([*blocks, FOOT])


def _bugs_by_impact(every: Sequence[Deviation]) -> str:
    """The contents of `docs/bugs.md`: each impact with the number of its bugs."""
    lines = []
    for impact, about in IMPACTS.items():
        count = sum(each.impact == impact for each in every)
        lines.append(f"- [{impact}](#{impact}): {about.meaning} ({count})")
    return "\n".join(lines) + "\n"


def _bug_row(deviation: Deviation) -> str:
    """A bug's row on `docs/bugs.md`: what is wrong, releases, cases, upstream issue."""
    reasons = dict.fromkeys(within.reason for within in deviation.ranges)
    cases = [f"`{case}`" for case in deviation.cases[:MOST_CASES]]
    more = len(deviation.cases) - MOST_CASES
    if more > 0:
        cases.append(f"and {more} more")
    upstream = deviation.upstream
    if upstream != NONE_FOUND:
        *_, owner, repository, _, number = upstream.split("/")
        upstream = f"[{owner}/{repository}#{number}]({upstream})"
    test = f" A test begins: `{deviation.test}`." if deviation.test else ""
    what = f"{' '.join(reasons)}{test} (`{deviation.id}`, {deviation.clause})"
    cells = (what, f"`{deviation.releases}`", ", ".join(cases), upstream)
    return f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |"


def _is_over(deviation: Deviation) -> bool:
    """Whether a bug is over: no range of its releases is open at the top."""
    return not deviation.is_of(FAR)
