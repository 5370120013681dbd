"""`report.html`: whole, the same every time, told by the records alone, and inert."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from conformance.cli import main
from conformance.judge.changes import CHANGED, FIXED, NOT_JUDGED, REGRESSED, UNCHANGED, Change
from conformance.report.html import page
from conformance.report.renderings import render
from conformance.report.stored_run import read_whole
from conformance.results.impacts import IMPACTS
from conformance.results.records import (
    AGREE,
    DIVERGE,
    ERROR,
    KNOWN,
    Divergence,
    KnownDeviation,
    Result,
    read_report,
)
from conformance.results.runs import RENDERINGS, write_whole
from conformance.spec import clauses

OLD, NEW = "4.57.6", "current"
NAME = "model.layers.{}.mlp.up_proj.weight"

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    "\"'><svg/onload=alert(1)>",
    "\x1b[31mred\x07",
    "a|b`c`\n\n# d",
    "\u202egpj.exe",
    "{{ 7 * 7 }}{% raw %}",
)


class Page(HTMLParser):
    """What a browser would find: elements, their attributes, and the text of some."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.texts.append((self.elements[-1][0] if self.elements else "", data))

    def having(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [
            found
            for name, found in self.elements
            if name == tag and attributes.items() <= found.items()
        ]

    @property
    def data(self) -> dict[str, Any]:
        text = "".join(text for tag, text in self.texts if tag == "script" and text[:1] == "{")
        found: dict[str, Any] = json.loads(text)
        return found


def divergence(where: str = "lm_head.weight", kind: str = "dtype", **more: Any) -> Divergence:
    return Divergence(
        **{"expected": "a", "actual": "b", "clause": "DTY-1"} | more, kind=kind, where=where
    )


# Not as the list has it today: a report shows what was known when the run was made.
LISTS = KnownDeviation("lists-for-sets", "INF-1", "report", "A list it is.", "https://x.example/1")

SEEN: dict[str, Any] = {
    "deviation": LISTS.id,
    "reason": LISTS.reason,
    "deviations": (LISTS,),
    "impact": LISTS.impact,
}


def result(case: str, status: str, target: str = NEW, **more: Any) -> Result:
    return Result(case, ("DTY-1", "TIE-3"), "valid", target, status, rerun=f"rerun {case}", **more)


def change(case: str, kind: str, **more: Any) -> Change:
    return Change(case, ("DTY-1", "TIE-3"), OLD, NEW, kind, rerun=f"rerun {case}", **more)


@pytest.fixture
def mixed(reported: Callable[..., Path]) -> Path:
    """Two targets, a case of most kinds."""
    broken = (divergence(), divergence("model.norm.weight"))
    results = [
        *(result(f"dty/{n}", AGREE, OLD) for n in "abc"),
        result("tie/d", DIVERGE, OLD, divergences=broken),
        result("dty/a", DIVERGE, divergences=broken, impact="wrong-model"),
        result("dty/b", KNOWN, divergences=broken, **SEEN),
        result("dty/c", ERROR, reason="killed"),
        result("tie/d", AGREE),
    ]
    changes = [
        change("dty/a", REGRESSED, divergences=broken, regressed=("DTY-1",), impact="wrong-model"),
        change("dty/b", REGRESSED, divergences=broken, regressed=("DTY-1",), accepted="we know"),
        change("dty/c", NOT_JUDGED, reason="killed"),
        change("tie/d", FIXED, divergences=broken, fixed=("DTY-1",)),
    ]
    return reported(results, changes, exit_code=2)


def rendered(folder: Path) -> Page:
    return Page(page(read_whole(folder / "report.jsonl")))


def finders(found: Page, **attributes: str) -> Counter[str]:
    """Token to the number that its button tells."""
    counts: Counter[str] = Counter()
    for button in found.having("button", **attributes):
        if "data-token" in button and (attributes or "data-clause" not in button):
            number = int(str(button["aria-label"]).partition(" ")[0])
            counts[str(button["data-token"])] += number
    return counts


def test_the_counts_are_those_of_the_records(mixed: Path) -> None:
    records = read_report(mixed / "report.jsonl")
    counts = finders(rendered(mixed))

    told = {
        word: n for token, n in counts.items() for c, _, word in [token.partition("=")] if c == "c0"
    }
    accepted = told.pop("accepted")
    impacts = {word: told.pop(word) for word in list(told) if word in IMPACTS}
    assert impacts == {"wrong-model": 1}
    assert told == {k.replace(" ", "-"): n for k, n in records[-1]["summary"].items()}
    assert accepted == 1
    for column, target in (("s0", OLD), ("s1", NEW)):
        kept = Counter(r["status"] for r in records if r.get("target") == target and "status" in r)
        assert {f"{column}={word}": n for word, n in kept.items()}.items() <= counts.items()


def test_the_matrix_counts_a_case_against_the_clause_it_breaks(mixed: Path) -> None:
    found = rendered(mixed)
    broken = finders(found, **{"data-clause": "DTY-1"})
    kept = finders(found, **{"data-clause": "TIE-3"})

    assert (kept["s0=agree"], kept["s1=agree"], kept["s1=error"]) == (4, 3, 1)
    assert kept["c0=unchanged"] == 3
    assert (broken["s1=diverge"], broken["s1=known"], broken["s1=error"]) == (1, 1, 1)
    # Once in the matrix, once in the table of what changed.
    assert (broken["c0=regressed"], broken["c0=fixed"]) == (2 * 2, 1 * 2)


def test_a_filter_finds_as_many_cases_as_its_button_tells(mixed: Path) -> None:
    found = rendered(mixed)
    rows = [str(row["data-tokens"]).split() for row in found.having("tr") if "data-tokens" in row]
    for token, number in finders(found).items():
        assert sum(token in tokens for tokens in rows) == number
    says = [case["says"] for case in found.data["cases"].values()]
    for button in found.having("button"):
        if "data-clause" in button:
            number = int(str(button["aria-label"]).partition(" ")[0])
            told = [each.get(str(button["data-clause"]), []) for each in says]
            assert sum(button["data-token"] in tokens for tokens in told) == number


def test_every_case_is_there(mixed: Path) -> None:
    found = rendered(mixed)
    cases = ["dty/a", "dty/b", "dty/c", "tie/d"]
    assert list(found.data["cases"]) == cases
    links = [row["href"] for row in found.having("a") if "#case=" in str(row["href"])]
    # No verdict, then a wrong model, then the report; what has no impact at the end.
    assert links == [f"#case={case}" for case in ("dty/c", "dty/a", "dty/b", "tie/d")]
    assert all(set(each["in"]) == {"c0", "s0", "s1"} for each in found.data["cases"].values())


def test_the_panel_has_what_decides(mixed: Path) -> None:
    data = rendered(mixed).data
    case = data["cases"]["dty/b"]
    assert case["rerun"] == "rerun dty/b"
    assert case["in"]["c0"]["accepted"] == "we know"
    (number,) = case["in"]["s1"]["found"]
    clause, kind, names, expected, actual, _, count, _ = data["found"][number]
    assert (clause, kind, expected, actual, count) == ("DTY-1", "dtype", "a", "b", 2)
    assert names == ["lm_head.weight", "model.norm.weight"]
    assert data["clauses"]["DTY-1"][2] == clauses()["DTY-1"].statement
    (number,) = case["in"]["s1"]["deviations"]
    assert data["deviations"][number] == [
        *(LISTS.id, LISTS.clause, LISTS.impact, LISTS.reason, LISTS.upstream)
    ]
    assert case["in"]["s1"]["impact"] == "report"
    assert "reason" not in case["in"]["s1"], "the deviation tells it"


def test_one_deviation_with_two_reasons_has_both(reported: Callable[..., Path]) -> None:
    """Two releases may show it in two ways."""
    other = replace(LISTS, reason="A tuple it is.")
    results = [
        result("dty/b", KNOWN, OLD, divergences=(divergence(),), **SEEN),
        result("dty/b", KNOWN, NEW, divergences=(divergence(),), **SEEN | {"deviations": (other,)}),
    ]
    data = rendered(reported(results, [change("dty/b", UNCHANGED)])).data
    reasons = {
        key: [data["deviations"][n][3] for n in entry.get("deviations", ())]
        for key, entry in data["cases"]["dty/b"]["in"].items()
    }
    assert reasons == {"c0": [], "s0": ["A list it is."], "s1": ["A tuple it is."]}


def test_a_check_says_first_what_can_go_wrong(reported: Callable[..., Path]) -> None:
    wrong = KnownDeviation("lost", "INI-2", "wrong-model", "A `buffer` is lost.", "none found")
    one = (divergence(),)
    results = [
        result("dty/a", KNOWN, divergences=one, **SEEN),
        result("dty/b", KNOWN, divergences=one, deviations=(wrong, LISTS), impact="wrong-model"),
        result("dty/c", DIVERGE, divergences=one, impact="report"),
        result("dty/d", AGREE),
    ]
    folder = reported(results, targets=(NEW,))
    text, found = page(read_whole(folder / "report.jsonl")), rendered(folder)

    buttons = [each for each in found.having("button") if "data-deviation" in each]
    assert [(each["data-deviation"], str(each["aria-label"]).split()[0]) for each in buttons] == [
        ("lost", "1"),
        ("lists-for-sets", "2"),
    ]
    (unexpected,) = [each for each in found.having("button") if "data-unexpected" in each]
    assert unexpected["data-unexpected"] == "s0=report"
    assert "A <code>buffer</code> is lost." in text
    assert found.having("a", href=LISTS.upstream)
    options = [each["value"] for each in found.having("option")]
    assert {"lost", "lists-for-sets", "s0=wrong-model", "s0=report"} <= set(options)
    rows = [row for row in found.having("tr") if "data-tokens" in row]
    for button in buttons:
        held = [str(row["data-deviations"]).split() for row in rows]
        told = int(str(button["aria-label"]).split()[0])
        assert sum(button["data-deviation"] in names for names in held) == told


def test_a_check_that_agrees_has_nothing_to_fear(reported: Callable[..., Path]) -> None:
    text = page(read_whole(reported([result("dty/a", AGREE)], targets=(NEW,)) / "report.jsonl"))
    assert "What can go wrong" not in text


def test_tensors_of_one_pattern_are_one_line(reported: Callable[..., Path]) -> None:
    each = [
        divergence(NAME.format(n), "values", expected=f"{n:016x}", actual=f"{n + 99:016x}")
        for n in range(32)
    ]
    folder = reported([result("dty/a", DIVERGE, divergences=tuple(each))], targets=(NEW,))
    (found,) = rendered(folder).data["found"]
    assert found[2] == ["model.layers.{0..31}.mlp.up_proj.weight"]
    assert found[3] == f"{0:016x}"
    assert found[-2:] == [32, 1]


def test_what_is_equal_is_kept_once(reported: Callable[..., Path]) -> None:
    """The size of a whole comparison stays modest: 409 cases under two targets."""
    many = tuple(
        divergence(f"{name}.{n}.weight", "values", expected=f"{n:016x}", actual="0" * 16)
        for name in ("q_proj", "k_proj", "v_proj")
        for n in range(24)
    )
    names = [f"dty/case-{n}" for n in range(409)]
    results = [result(n, DIVERGE, t, divergences=many) for t in (OLD, NEW) for n in names]
    changes = [change(n, CHANGED, divergences=many) for n in names]
    folder = reported(results, changes)
    text = page(read_whole(folder / "report.jsonl"))
    assert len(Page(text).data["found"]) == 1
    assert len(text.encode()) < 1_000_000


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_name_is_never_markup(hostile: str, reported: Callable[..., Path]) -> None:
    bad = divergence(
        hostile, kind="values", expected=hostile, actual={hostile: hostile}, detail=hostile
    )
    more = {"divergences": (bad,), "reason": hostile, "impact": hostile}
    known = (KnownDeviation(*[hostile] * 5),)
    results = [
        result(f"own/{hostile}", DIVERGE, hostile, deviation=hostile, deviations=known, **more),
        result(f"own/{hostile}", ERROR, "other", **more),
    ]
    changes = [
        Change(
            *(f"own/{hostile}", ("DTY-1", hostile), hostile, "other", REGRESSED, (bad,)),
            regressed=("DTY-1",),
            moved=hostile,
            accepted=hostile,
            rerun=hostile,
            defaults=(hostile,),
        )
    ]
    folder = reported(results, changes, (hostile, "other"), platform=hostile, device=hostile)
    text = page(read_whole(folder / "report.jsonl"))
    calm = rendered(
        reported([result("dty/a", AGREE, "x")], [change("dty/a", UNCHANGED)], ("x", NEW))
    )

    found = Page(text)
    assert (
        not {tag for tag, _ in found.elements}
        - {tag for tag, _ in calm.elements}
        - {*("code", "ul", "li", "strong")}
    )
    assert not [name for _, each in found.elements for name in each if name.startswith("on")]
    assert len(found.having("script")) == 2
    assert not [character for character in "\x1b\x07\u202e" if character in text]
    assert "49" not in [text.strip() for _, text in found.texts]
    assert list(found.data["cases"]) == [f"own/{_plain(hostile)}"]


def _plain(text: str) -> str:
    """As `plain` has it, said independently."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def test_the_page_asks_nobody_for_anything(mixed: Path) -> None:
    found = rendered(mixed)
    for tag, attributes in found.elements:
        assert "src" not in attributes and "srcset" not in attributes
        assert tag == "a" or str(attributes.get("href", "data:")).startswith("data:")
        assert "style" not in attributes  # the policy forbids it
    (policy,) = found.having("meta", **{"http-equiv": "Content-Security-Policy"})
    assert "default-src 'none'" in str(policy["content"])
    for tag in ("script", "style"):
        (code,) = (
            text for name, text in found.texts if name == tag and text.strip() and text[0] != "{"
        )
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in str(policy["content"])
        assert "://" not in code.replace("https:\\/\\/", "")


def test_everything_that_does_something_is_a_button_a_link_or_a_field(mixed: Path) -> None:
    found = rendered(mixed)
    assert found.having("html", lang="en")
    for tag, attributes in found.elements:
        assert attributes.get("tabindex") in (None, "0", "-1")
        assert tag != "button" or attributes.get("type") in ("button", "reset")
        if "aria-labelledby" in attributes:
            assert any(
                attributes["aria-labelledby"] == each.get("id") for _, each in found.elements
            )
    assert found.having("dialog", **{"aria-labelledby": "panel-title"})


def test_the_same_file_gives_the_same_page_in_another_process(mixed: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from conformance.report.renderings import render"
    )
    pages = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        (folder / "report.jsonl").write_bytes((mixed / "report.jsonl").read_bytes())
        done = subprocess.run(
            [sys.executable, "-c", f"{program}; render(Path(sys.argv[1]))", folder],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        pages.append([(folder / name).read_bytes() for name in RENDERINGS])
    assert pages[0] == pages[1]


def test_a_truncated_report_is_refused_and_leaves_nothing(
    reported: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = reported([result("dty/a", AGREE)], whole=False)
    for words in ([], ["--format", "markdown"]):
        assert main(["render", str(folder), *words]) == 2
        assert "report.jsonl has no footer: the run was cut off" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["report.jsonl"]


def test_a_record_of_another_form_is_refused(
    reported: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = reported([result("dty/a", AGREE)])
    path = folder / "report.jsonl"
    path.write_text(path.read_text("utf-8").replace('"input_class"', '"input"'), "utf-8")
    assert main(["render", str(folder)]) == 2
    assert "report.jsonl has a record that is not of schema 1" in capsys.readouterr().err


def test_a_new_run_takes_the_old_renderings_away(reported: Callable[..., Path]) -> None:
    """Else a run that is killed would leave the last one's page as its own."""
    folder = reported([result("dty/a", AGREE)])
    render(folder)
    assert {path.name for path in folder.iterdir()} == {"report.jsonl", *RENDERINGS}
    reported([], whole=False)
    assert [path.name for path in folder.iterdir()] == ["report.jsonl"]


def test_a_file_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    write_whole(path, "old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, "new")
    assert [(each.name, each.read_text("utf-8")) for each in tmp_path.iterdir()] == [
        ("report.html", "old")
    ]


def test_a_clause_or_deviation_that_is_gone_is_told(reported: Callable[..., Path]) -> None:
    gone = result("dty/a", KNOWN, divergences=(divergence(clause="DTY-999"),), deviation="gone")
    folder = reported([gone], targets=(NEW,))
    assert "a clause that no longer exists" in page(read_whole(folder / "report.jsonl"))
    render(folder)


def test_two_targets_of_one_name_stay_apart(reported: Callable[..., Path]) -> None:
    results = [result("dty/a", AGREE), result("dty/a", DIVERGE, divergences=(divergence(),))]
    changes = [Change("dty/a", ("DTY-1",), NEW, NEW, REGRESSED, (divergence(),), ("DTY-1",))]
    folder = reported(results, changes, targets=(NEW, NEW))
    assert finders(rendered(folder)) == {"c0=regressed": 1, "s0=agree": 1, "s1=diverge": 1}


def test_three_targets_are_two_steps(reported: Callable[..., Path]) -> None:
    targets = ("1", "2", "3")
    results = [result("dty/a", AGREE, target) for target in targets]
    changes = [Change("dty/a", ("DTY-1",), *pair, UNCHANGED) for pair in (("1", "2"), ("2", "3"))]
    found = rendered(reported(results, changes, targets, exit_code=0))
    assert set(finders(found)) == {
        "c0=unchanged",
        "c1=unchanged",
        *(f"s{n}=agree" for n in range(3)),
    }
    assert found.data["columns"] == {"c0": "1 → 2", "c1": "2 → 3", "s0": "1", "s1": "2", "s2": "3"}
