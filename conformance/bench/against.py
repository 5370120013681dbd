"""One night's figures against those of the night before: `python -m conformance.bench.against`.

Takes two files of `conformance bench` and shows what moved; 1 if something became worse by more
than its threshold, 0 if not, or if the machine or a version is another one, 2 for a file that is
none.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HELD = "reference"  # the contender that is held; stock may do as it likes

# By how much a figure may grow from night to night: as a factor, and in its own unit besides, since
# what is small anyway varies more.
SECONDS, BYTES = (1.10, 0.02), (1.05, 8 * 2**20)


class NoFigures(ValueError):
    """A file that `conformance bench` has not written."""


@dataclass(frozen=True)
class Figure:
    """A number of which less is better.

    Attributes:
        case: the case's id.
        what: what was measured.
        value: in seconds or bytes.
        factor, margin: see `SECONDS`.
    """

    case: str
    what: str
    value: float
    factor: float
    margin: float

    def worse_than(self, before: Figure) -> bool:
        """Whether a benchmark figure grew since the night before by more than it may."""
        return self.value > max(before.value * self.factor, before.value + self.margin)


@dataclass(frozen=True)
class Change:
    """A figure of both nights, one of them None where it was taken in the other night only."""

    case: str
    what: str
    before: Figure | None
    now: Figure | None

    @property
    def word(self) -> str:
        """How the figure changed: `worse`, `better` by as much, `same`, `new`; `gone` is worse."""
        if self.before is None or self.now is None:
            return "gone" if self.now is None else "new"
        if self.now.worse_than(self.before):
            return "worse"
        return "better" if self.before.worse_than(self.now) else "same"


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """The change of every benchmark figure of either night."""
    left, right = ({(f.case, f.what): f for f in figures(each)} for each in (before, now))
    keys = dict.fromkeys((*left, *right))
    return [Change(*key, left.get(key), right.get(key)) for key in keys]


def figures(record: Mapping[str, Any]) -> Iterator[Figure]:
    """A night's benchmark figures: the reference's seconds and peaks, 1 a bound not kept."""
    for case in record["cases"]:
        row = case["rows"].get(HELD)
        if row is not None and row["samples"]:
            name, clock = case["case"]["id"], case["case"]["clock"]
            yield Figure(name, f"{clock}, s", _median_seconds(row["samples"], clock), *SECONDS)
            for what, size in _peaks_of_memory(row["memory"]).items():
                yield Figure(name, f"{what}, bytes", size, *BYTES)
    for bound in record["bounds"]:
        if bound["kept"] is not None:
            name = f"{bound['what']}, bound"
            yield Figure(bound["case"], name, float(not bound["kept"]), 1.0, 0.5)


def _median_seconds(samples: Sequence[Mapping[str, Any]], clock: str) -> float:
    """A night's seconds of one contender by one clock: the median of its samples."""
    found = (sample[clock] for sample in samples)
    each = [statistics.median(s) if isinstance(s, list) else float(s) for s in found]
    return statistics.median(each)


def _peaks_of_memory(memory: Mapping[str, Any]) -> dict[str, float]:
    """A night's peaks of memory: on the host by kind, and on the GPU."""
    host = {f"peak {kind}": memory["peaks"][kind] for kind in ("anonymous", "total")}
    on_gpu = memory["gpu"].get("allocated")
    return host | ({} if on_gpu is None else {"peak on the GPU": on_gpu})


def elsewhere(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs of two nights' machines and versions: then their figures cannot be compared."""
    left, right = before["machine"], now["machine"]
    return [
        f"{name}: {left.get(name)} became {right.get(name)}"
        for name in dict.fromkeys((*left, *right))
        if left.get(name) != right.get(name)
    ]


def read(path: Path) -> dict[str, Any]:
    """The benchmark figures of a night, from the file that `conformance bench` wrote.

    Raises:
        NoFigures: the file cannot be read, or lacks what is compared.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        list(figures(record)), record["machine"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoFigures(f"{path}: {type(error).__name__}: {error}") from error
    return record


def table(found: Sequence[Change]) -> list[str]:
    """Two nights' figures as lines of text, one a figure, those that became worse first."""
    order = ("worse", "gone", "better", "new", "same")
    rows = [
        (
            each.case,
            each.what,
            _figure_text(each.before),
            _figure_text(each.now),
            _factor_text(each),
            each.word,
        )
        for each in sorted(found, key=lambda each: order.index(each.word))
    ]
    rows.insert(0, ("case", "what", "before", "now", "", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return ["  ".join(map(_padded, row, widths, range(6))).rstrip() for row in rows]


def _padded(text: str, width: int, column: int) -> str:
    """A cell of the table of two nights: words to the left, numbers to the right."""
    return text.ljust(width) if column in (0, 1, 5) else text.rjust(width)


def _figure_text(figure: Figure | None) -> str:
    """A night's figure as the table shows it."""
    if figure is None:
        return "–"
    return f"{figure.value:.4f}" if figure.factor == SECONDS[0] else f"{figure.value:,.0f}"


def _factor_text(change: Change) -> str:
    """How many times the figure of the night before, as the table shows it."""
    if change.before is None or change.now is None or not change.before.value:
        return ""
    return f"×{change.now.value / change.before.value:.2f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Show the table of two nights' figures; the exit code."""
    parser = argparse.ArgumentParser("python -m conformance.bench.against", description=__doc__)
    parser.add_argument("before", type=Path, help="bench.json of the night before")
    parser.add_argument("now", type=Path, help="bench.json of this night")
    given = parser.parse_args(arguments)
    if not given.before.exists():
        print(f"{given.before} is not there: this night is the first")
        return 0
    try:
        before, now = read(given.before), read(given.now)
    except NoFigures as error:
        print(f"against: {error}", file=sys.stderr)
        return 2
    found = changes(before, now)
    print("\n".join(table(found)))
    if moved := elsewhere(before, now):
        print(f"\nnot held against each other: {'; '.join(moved)}")
        return 0
    worse = [each for each in found if each.word in ("worse", "gone")]
    print(f"\n{len(worse)} of {len(found)} figures worse than the night before")
    return 1 if worse else 0


if __name__ == "__main__":
    raise SystemExit(main())
