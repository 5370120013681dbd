"""The table of pairs: every pair of values is in some case, and a case owns its options."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from conformance.cases import combo
from conformance.cases.case import Case
from conformance.cases.combo import CASES, FACTORS, IMPOSSIBLE, ROWS, case_with
from conformance.cases.pairwise import Never, allowed_pairs, covering_array
from conformance.observe.keywords import keywords
from conformance.observe.loaders import stock
from conformance.observe.observe import observe


def pairs_of(rows: list[dict[str, str]]) -> set[Any]:
    return {pair for row in rows for pair in combinations(row.items(), 2)}


def test_every_pair_that_can_be_is_in_some_case_and_no_other() -> None:
    assert pairs_of(ROWS) == set(allowed_pairs(FACTORS, IMPOSSIBLE))
    assert len(CASES) == len(ROWS) <= 120


def test_the_plain_call_is_the_first_case_and_gives_no_option() -> None:
    first = CASES[0]

    assert first.id == "combo/001-plain"
    assert first.keywords() == {}
    assert Case("x", ("MAP-1",)).keywords() == {"output_loading_info": True}
    assert sum(case.plain for case in CASES) >= len(CASES) // 2


def test_what_cannot_be_has_a_reason_and_names_values_that_there_are() -> None:
    for never in IMPOSSIBLE:
        assert never.reason
        assert set(never.values) <= set(FACTORS[never.factor])
        assert set(never.others) <= set(FACTORS[never.other])


def test_every_value_changes_the_call_or_the_checkpoint() -> None:
    for factor, (default, *others) in FACTORS.items():
        plain = {name: values[0] for name, values in FACTORS.items()}
        for value in others:
            row = plain | {factor: value} | ({"map": "disk"} if factor == "buffers" else {})
            one, other = (combo._case(1, each) for each in (row, row | {factor: default}))
            described = [(c.recipe, c.faults, c.model, c.keywords(), c.given) for c in (one, other)]
            assert described[0] != described[1], (factor, value)


@pytest.mark.parametrize("seed", range(5))
def test_a_covering_array_holds_all_pairs_of_any_factors(seed: int) -> None:
    factors = {f"f{i}": [str(v) for v in range(1 + (i * 7 + seed) % 5)] for i in range(6)}
    never = [Never("f0", ("0",), "f1", ("1",), "a reason")] if len(factors["f1"]) > 1 else []
    never = never if len(factors["f0"]) > 1 else []

    rows = covering_array(factors, never)

    assert pairs_of(rows) == set(allowed_pairs(factors, never))
    assert rows == covering_array(factors, never)
    assert rows[0] == {name: values[0] for name, values in factors.items()}


def test_a_pair_that_no_row_can_hold_is_an_error() -> None:
    factors = {"a": ["0", "1"], "b": ["0"]}

    with pytest.raises(ValueError, match="no value of b goes with"):
        covering_array({**factors, "c": ["0"]}, [Never("a", ("1",), "b", ("0",), "not together")])


def test_a_case_is_found_by_its_values() -> None:
    assert "fp16" in case_with("RES-7", variant=("fp16",), subfolder=("inner",)).id
    with pytest.raises(ValueError, match="no case cites IDX-2"):
        case_with("IDX-2")


MAPPED = Case(
    "x",
    ("MAP-6",),
    options={"key_mapping": {"a": "b"}, "max_memory": {"cpu": 1}, "device_map": {"": "cpu"}},
)


def test_each_load_gets_options_of_its_own() -> None:
    one, other = (keywords(MAPPED, MAPPED.source(), None)[0] for _ in range(2))

    for name, value in MAPPED.options.items():
        assert one[name] == other[name] == value
        assert one[name] is not other[name] is not value


def test_a_loader_that_uses_up_an_option_is_judged_and_the_next_load_has_it() -> None:
    def greedy(model_class: Any, source: Any, **options: Any) -> Any:
        result = stock(model_class, source, **options)
        options["key_mapping"].clear()
        options["device_map"]["more"] = "cpu"
        return result

    case = case_with("CFG-40", mapping=("mapped",), map=("whole", "split"))
    seen = observe(case, greedy).observation.state

    for name in ("key_mapping passed", "device_map passed"):
        assert seen["before"][name] != seen["after"][name]
    again = observe(case, stock).observation.state
    assert [name for name in again["before"] if name.endswith(" passed")] == []
