"""Covering arrays: rows of values in which every pair of values of two factors occurs.

Most faults that need several options need two of them (Kuhn, Wallace and Gallo 2004), and a table
of all pairs is some hundred rows where a table of all combinations is millions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

# A factor and one of its values.
Setting = tuple[str, str]
Pair = tuple[Setting, Setting]


@dataclass(frozen=True)
class Never:
    """Values of two factors that cannot be in one row.

    Attributes:
        factor, values: the one factor, and which of its values.
        other, others: the other, and which of its values.
        reason: why not.
    """

    factor: str
    values: tuple[str, ...]
    other: str
    others: tuple[str, ...]
    reason: str

    def pairs(self) -> Iterator[Pair]:
        """Every pair that it forbids, in both orders."""
        for value, other in product(self.values, self.others):
            yield (self.factor, value), (self.other, other)
            yield (self.other, other), (self.factor, value)


def allowed_pairs(
    factors: Mapping[str, Sequence[str]], constraints: Sequence[Never]
) -> dict[Pair, None]:
    """Every pair of values of two factors that may be in one row, in the order of the factors."""
    forbidden = {pair for each in constraints for pair in each.pairs()}
    pairs = (
        ((one, value), (other, second))
        for one, other in combinations(factors, 2)
        for value, second in product(factors[one], factors[other])
    )
    return dict.fromkeys(pair for pair in pairs if pair not in forbidden)


def covering_array(
    factors: Mapping[str, Sequence[str]], constraints: Sequence[Never]
) -> list[dict[str, str]]:
    """Rows in which every allowed pair occurs; the same rows on every call.

    Greedy: each row begins with a pair that is not there yet, and takes for every other factor the
    value with the most new pairs, the first among equals. The first row is the first value of
    every factor.

    Raises:
        ValueError: a pair is allowed, and no value of some factor goes with it.

    Example:
        >>> covering_array({"a": ["0", "1"], "b": ["0", "1"]}, [])
        [{'a': '0', 'b': '0'}, {'a': '0', 'b': '1'}, {'a': '1', 'b': '0'}, {'a': '1', 'b': '1'}]
    """
    forbidden = {pair for each in constraints for pair in each.pairs()}
    # In both orders, so that a lookup needs no sorting.
    open_pairs = allowed_pairs(factors, constraints)
    missing = {*open_pairs, *((second, first) for first, second in open_pairs)}
    rows = []
    start: tuple[Setting, ...] = tuple((name, values[0]) for name, values in factors.items())
    while missing:
        row = dict(start)
        for name, values in factors.items():
            if name not in row:
                row[name] = _best(name, values, row, missing, forbidden)
        for one, other in product(row.items(), repeat=2):
            missing.discard((one, other))
            open_pairs.pop((one, other), None)
        rows.append({name: row[name] for name in factors})
        start = next(iter(open_pairs), ())
    return rows


def _best(
    name: str,
    values: Sequence[str],
    row: Mapping[str, str],
    missing: set[Pair],
    forbidden: set[Pair],
) -> str:
    """Of the values that go with the row, the one with the most pairs that are missing."""
    fitting = [v for v in values if not any(((name, v), each) in forbidden for each in row.items())]
    if not fitting:
        raise ValueError(f"no value of {name} goes with {dict(row)}")
    return max(fitting, key=lambda v: sum(((name, v), each) in missing for each in row.items()))
