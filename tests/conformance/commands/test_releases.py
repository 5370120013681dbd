"""`conformance releases`: what is judged, what is kept, and the table in two forms."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from conformance.cases.catalogue import CASES
from conformance.cli import main
from conformance.commands import releases as matrix
from conformance.judge.changes import Outcome
from conformance.releases.judging import Run
from conformance.releases.published import NotListed
from conformance.results.records import AGREE, DIVERGE, ERROR, Divergence, Result
from conformance.results.runs import recording

HOSTILE = "<script>alert(1)</script>"


def result(case: str, clauses: tuple[str, ...], release: str, **more: Any) -> Result:
    return Result(case, clauses, "valid", release, more.pop("status", AGREE), **more)


def results(release: str) -> list[Result]:
    """One case agrees, one is a known deviation, one is news and one has no verdict."""
    stray = Divergence("values", "model.layers.0.input_layernorm.weight", "1", "2", "IDX-2")
    news = Divergence("tie", "lm_head.weight", "the embedding", "its own", "TIE-1")
    return [
        result("res/single", ("RES-1",), release),
        result("idx/stray-duplicate-of-2", ("IDX-2",), release, divergences=(stray,)),
        result("tie/embedding-only", ("TIE-1",), release, divergences=(news,)),
        result("out/f32-3", ("OUT-1",), release, status=ERROR, reason=f"killed {HOSTILE}"),
    ]


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The releases that would be judged; each leaves a small report."""
    names: list[str] = []

    def judge(release: str, out: Path, kept: object, progress: object) -> None:
        names.append(release)
        keep(out / release, release, results(release))

    monkeypatch.setattr(matrix, "_judge_release", judge)
    return names


def keep(folder: Path, release: str, kept: list[Result]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    header = {"target": release, "release": release, "loader": "stock", "versions": {}}
    with recording(folder, header) as recorder:
        for each in kept:
            recorder.result(each)
        recorder.footer(1, "2026-11-25T00:00:00Z")


def run(tmp_path: Path, *words: str) -> int:
    (tmp_path / "docs").mkdir(exist_ok=True)
    where = ["--out", str(tmp_path / "kept"), "--docs", str(tmp_path / "docs")]
    return main(["releases", *words, *where])


def test_the_table_says_which_release_breaks_which_clause(
    tmp_path: Path, judged: list[str]
) -> None:
    """What is kept has no status yet: it is reached by the deviations known today."""
    assert run(tmp_path, "4.57.6", "5.0.0") == 2, "one case has no verdict"
    assert judged == ["4.57.6", "5.0.0"]
    text = (tmp_path / "docs" / "releases.md").read_text("utf-8")
    rows = {line.split(" | ")[0]: line.split(" | ")[3:] for line in text.splitlines()}
    assert rows["| clause"] == ["4.57.6", "5.0.0 |"]
    assert rows["| IDX-2"] == ["1", "1 |"]
    assert rows["| TIE-1"] == ["1!", "1! |"]
    assert rows["| OUT-1"] == ["1!", "1! |"]
    assert rows["| RES-1"] == ["", " |"]
    assert "- 5.0.0, `tie/embedding-only`: diverge, TIE-1" in text
    assert "- 4.57.6, `out/f32-3`: error, killed" in text
    assert "2026-11-25" in text


def test_the_page_is_whole_and_asks_for_nothing(tmp_path: Path, judged: list[str]) -> None:
    found: list[tuple[str, dict[str, str | None]]] = []

    class Page(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append((tag, dict(attrs)))

    run(tmp_path, "4.57.6", "5.0.0")
    text = (tmp_path / "docs" / "releases.html").read_text("utf-8")
    Page().feed(text)
    titles = [attributes.get("title") for tag, attributes in found if tag == "td"]
    assert "5.0.0, IDX-2: idx/stray-duplicate-of-2" in titles
    assert not [tag for tag, attributes in found if {"src", "onclick"} & attributes.keys()]
    assert "script" not in [tag for tag, _ in found]
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text


def test_what_is_kept_is_rendered_again_without_judging(tmp_path: Path, judged: list[str]) -> None:
    run(tmp_path, "5.0.0")
    (tmp_path / "docs" / "releases.md").unlink()
    assert run(tmp_path, "5.0.0", "--kept") == 2
    assert judged == ["5.0.0"]
    assert (tmp_path / "docs" / "releases.md").exists()


def test_a_run_that_was_cut_off_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judged are the cases that a whole report lacks or has no verdict on; of no whole one, all."""
    asked: dict[str, list[str]] = {}

    def judge_in(target: Any, python: Path, work: Any, advance: Any) -> Run:
        asked[target.name] = [case.id for case in work.cases]
        ready = {"release": target.name, "loader": "stock", "versions": {}}
        found = [result(case.id, case.clauses, target.name) for case in work.cases]
        return Run(target, ready, [Outcome(c, r) for c, r in zip(work.cases, found, strict=True)])

    monkeypatch.setattr(matrix, "judge_in", judge_in)
    monkeypatch.setattr(matrix, "interpreter", lambda target, tell: Path("python"))
    whole = [result(case.id, case.clauses, "x") for case in CASES]
    failed = [result(CASES[0].id, CASES[0].clauses, "x", status=ERROR), *whole[1:-1]]
    for release, kept in (("5.0.0", whole), ("5.1.0", failed), ("5.2.0", whole)):
        keep(tmp_path / "kept" / release, release, kept)
    cut = tmp_path / "kept" / "5.2.0" / "report.jsonl"
    cut.write_text("\n".join(cut.read_text("utf-8").splitlines()[:-1]), "utf-8")
    assert run(tmp_path, "5.0.0", "5.1.0", "5.2.0", "--resume") == 3, "all agree: all is stale"
    assert asked == {
        "5.1.0": [CASES[0].id, CASES[-1].id],
        "5.2.0": [case.id for case in CASES],
    }


def test_without_names_it_takes_every_minor(
    tmp_path: Path, judged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    every = [Version(each) for each in ("4.46.3", "4.47.0", "4.47.1", "5.0.0")]
    monkeypatch.setattr(matrix, "published", lambda: every)
    run(tmp_path)
    assert judged == ["4.47.1", "5.0.0"]


def test_no_index_is_a_harness_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unlisted() -> list[Version]:
        raise NotListed("no way to the index")

    monkeypatch.setattr(matrix, "published", unlisted)
    assert run(tmp_path) == 2
    assert "no way to the index" in capsys.readouterr().err
    assert not list((tmp_path / "docs").iterdir())


def test_news_is_exit_1(tmp_path: Path) -> None:
    keep(tmp_path / "kept" / "5.0.0", "5.0.0", results("5.0.0")[:3])
    assert run(tmp_path, "5.0.0", "--kept") == 1
    assert DIVERGE in (tmp_path / "docs" / "releases.md").read_text("utf-8")
