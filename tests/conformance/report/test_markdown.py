"""The comment on a pull request: within GitHub's limit, and no name in it is markup."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from conformance.judge.changes import CHANGED, FIXED, REGRESSED, UNCHANGED, Change
from conformance.report.markdown import MOST_BYTES, code, comment
from conformance.report.stored_run import read_whole
from conformance.results.records import AGREE, DIVERGE, KNOWN
from conformance.spec import clauses
from tests.conformance.report.test_html import (
    HOSTILE,
    NEW,
    OLD,
    SEEN,
    Page,
    change,
    divergence,
    result,
)

PARSER = MarkdownIt("commonmark").enable("table")


def commented(folder: Path, *foot: str) -> str:
    return comment(read_whole(folder / "report.jsonl"), foot)


def test_it_says_what_one_decides_by(reported: Callable[..., Path]) -> None:
    broken = (divergence(expected="float32", actual="bfloat16"),)
    changes = [
        change("dty/a", REGRESSED, divergences=broken, regressed=("DTY-1",)),
        change("dty/b", FIXED, divergences=broken, fixed=("DTY-1",)),
        change("dty/c", CHANGED, divergences=broken, accepted="we know"),
        change("dty/d", UNCHANGED),
    ]
    text = commented(reported([result(c.case, AGREE) for c in changes], changes), "a foot")

    assert "**4 cases, 1 regressed, 1 changed, 1 fixed** – exit 1" in text
    assert f"| `transformers` | `{OLD}` | `{NEW}` |" in text
    assert "`torch`" not in text  # the same in both
    what = "`dtype of lm_head.weight: float32 → bfloat16`"
    title = clauses()["DTY-1"].title
    assert f"| ▼ regressed | wrong-model | `DTY-1` | {title} | {what} | 1 |" in text
    assert "| ▲ fixed | wrong-model | `DTY-1` |" in text
    assert text.count("<details>") == 1  # neither what was fixed nor what is accepted
    assert "rerun: rerun dty/a" in text
    assert "- `accepted: dty/c: we know`" in text
    assert "- `a foot`" in text


def test_ones_own_checkpoints_have_their_costs(reported: Callable[..., Path]) -> None:
    own = Change(
        *("own/mine/as-saved", ("DTY-1",), OLD, NEW, CHANGED, (divergence(),)),
        seconds=(1.5, None),
        peak_bytes=(3 * 2**20, 4 * 2**20),
    )
    text = commented(reported([result(own.case, AGREE)], [own]))
    costs = "1.50 s → - | 3 MiB → 4 MiB"
    what = "`dtype of lm_head.weight: a → b`"
    assert f"| `own/mine/as-saved` | ≠ changed | {costs} | {what} |" in text
    assert "| `mine` | wrong-model | `loads as b (was a): lm_head.weight" in text


def test_a_check_has_a_row_a_clause_that_is_broken(reported: Callable[..., Path]) -> None:
    results = [
        result("dty/a", DIVERGE, divergences=(divergence(),), impact="wrong-model"),
        result("dty/b", AGREE),
        result("dty/c", KNOWN, divergences=(divergence(kind="config", impact="report"),), **SEEN),
    ]
    text = commented(reported(results, targets=(NEW,)))
    assert "1 diverge: 1 can give a wrong model\n\n1 known: 1 report\n" in text
    title = clauses()["DTY-1"].title
    # The gravest first, each with the deviations of the run.
    first, second = (line for line in text.splitlines() if "`DTY-1`" in line and line[0] == "|")
    assert first == f"| wrong-model | `DTY-1` | {title} | ✗ 1 diverge |  |"
    assert second == f"| report | `DTY-1` | {title} | ≈ 1 known | `lists-for-sets` |"
    assert "`TIE-3`" not in text
    assert "rerun: rerun dty/a" in text


def test_a_check_without_news_says_so(reported: Callable[..., Path]) -> None:
    text = commented(reported([result("dty/a", AGREE)], targets=(NEW,), exit_code=0))
    assert "Every case agrees." in text
    assert "<details>" not in text


@pytest.mark.parametrize("hostile", [*HOSTILE, "`", "``x", "a\\|b", "@someone #1", "</details>"])
def test_a_name_is_never_markup(hostile: str, reported: Callable[..., Path]) -> None:
    bad = divergence(hostile, expected=hostile, actual=hostile, detail=hostile)
    found = Change(
        *(f"own/{hostile}", ("DTY-1",), hostile, "other", REGRESSED, (bad,)),
        regressed=("DTY-1",),
        rerun=hostile,
        defaults=(hostile,),
        moved=hostile,
    )
    folder = reported([result(found.case, AGREE)], [found], (hostile, "other"))
    text = commented(folder, hostile)

    page = Page(PARSER.render(text))
    assert {tag for tag, _ in page.elements} <= {
        *("h3", "p", "strong", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"),
        *("details", "summary", "code", "pre"),
    }
    assert len(page.having("details")) == 1
    assert len(page.having("h3")) == 1
    # Every row has as many cells as its table has columns.
    assert len(page.having("td")) == 3 * 1 + 6 * 1 + 5 * 1 + 5 * 1
    outside = "".join(text for tag, text in page.texts if tag not in ("code", "pre", "summary"))
    assert "@someone" not in outside and "alert" not in outside
    assert "\x1b" not in text and "\u202e" not in text


def test_it_stays_within_the_limit_and_says_what_is_left_out(reported: Callable[..., Path]) -> None:
    long = "é" * 5_000
    changes = [
        Change(
            *(f"own/{n}-{long}", ("DTY-1",), OLD, NEW, REGRESSED),
            (divergence(long, expected=long, actual=f"{n}{long}", detail=long),),
            ("DTY-1",),
            rerun=f"rerun {long}",
        )
        for n in range(300)
    ]
    folder = reported([result(each.case, AGREE) for each in changes], changes)
    text = commented(folder, *[long] * 300)
    assert 20_000 < len(text.encode()) <= MOST_BYTES
    assert "more in `report.html`" in text.splitlines()[-1]
    assert text.count("<details>") == text.count("</details>") > 0


@pytest.mark.parametrize("text", ["a", "`", "``", "a`b", " ` ", "`a``b```"])
def test_a_code_span_shows_what_it_is_given(text: str) -> None:
    (inline,) = (each for each in PARSER.parse(f"x {code(text)} y") if each.type == "inline")
    kinds = [(child.type, child.content) for child in inline.children or []]
    assert kinds[1] == ("code_inline", text)
    assert len(kinds) == 3
