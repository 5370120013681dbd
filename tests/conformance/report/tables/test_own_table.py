"""The first screen on own checkpoints: what is said first, and in which words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from conformance.judge.changes import BOTH, FIRST, NOT_JUDGED, REGRESSED, SECOND, Change
from conformance.report.tables.own_table import own_rows
from conformance.results.records import Divergence

LOST = "tower.layers.{}.weight"


def changed(name: str, *divergences: Divergence, form: str = "as-saved", **fields: Any) -> Change:
    case = f"own/{name}/{form}"
    kept = {"before": "4.57.6", "after": "5.24.0", "change": "changed"} | fields
    return Change(case, (), **kept, divergences=divergences)


def differs(kind: str, where: str, expected: Any, actual: Any, right: str = BOTH) -> Divergence:
    return replace(Divergence(kind, where, expected, actual), right=right)


def rows(*changes: Change) -> list[tuple[str, str, str, str, str]]:
    return list(own_rows(changes))


def test_what_the_new_release_gets_wrong_is_said_before_what_it_mends() -> None:
    mended = changed("llama", differs("dtype", "a", "torch.float32", "torch.bfloat16", SECOND))
    both = changed("t5", differs("output", "logits", {"x": 1}, {"x": 2}, BOTH))
    broken = changed("own", differs("values", "scale", "aa", "bb", FIRST), change=REGRESSED)

    assert [row[0] for row in rows(mended, both, broken)] == ["own", "t5", "llama"]


@pytest.mark.parametrize(
    ("before", "after", "impact", "said", "advice"),
    [
        ([], [LOST.format(0), LOST.format(1)], "wrong-model", "5.24.0 leaves 2 weights", "rename"),
        ([LOST.format(0)], [], "report", "5.24.0 loads what was left random", "nothing"),
        (["a"], ["b"], "report", "reports other weights as missing: b, before a", "rename"),
    ],
)
def test_weights_that_are_random_now_are_no_mere_report(
    before: list[str], after: list[str], impact: str, said: str, advice: str
) -> None:
    ((_, told, what, _, do),) = rows(
        changed("x", differs("missing", "missing_keys", before, after))
    )

    assert told == impact
    assert said in what
    assert advice in do


def test_names_that_change_no_output_concern_code_that_reads_them() -> None:
    gone = differs("kind-of-tensor", "old.weight", "present", "absent")

    ((_, impact, *_),) = rows(changed("x", gone))
    assert impact == "report"

    output = differs("output", "logits", {"x": 1}, {"x": 2})
    impacts = {row[1] for row in rows(changed("x", gone, output))}
    assert "wrong-model" in impacts


def test_outputs_of_one_way_of_loading_are_one_row() -> None:
    outputs = [differs("output", f"hidden_states.{n}", {"x": n}, {"x": -n}) for n in range(1, 9)]

    (row,) = rows(changed("x", *outputs))

    assert "hidden_states.{1..8}" in row[2]


def test_what_got_better_is_one_row_for_all_checkpoints() -> None:
    better = differs("rejected", "(load)", "KeyError: 'a'", "a model", SECOND)
    changes = [changed(name, better, form="disk-offload") for name in ("a", "b", "c")]

    (row,) = rows(*changes)

    assert row[0] == "a and 2 more"
    assert row[4] == "nothing"


def test_one_error_told_of_several_paths_is_one_row() -> None:
    reason = "the reference refuses it: NothingMatches: None of the keys of {} belongs to the model"
    changes = [
        changed("x", form=form, change=NOT_JUDGED, reason=reason.format(form))
        for form in ("auto", "base")
    ]

    (row,) = rows(*changes)

    assert row[1] == NOT_JUDGED
    assert row[2] == f"{reason.format('auto')} [auto, base]"
