"""A checkpoint whose keys are made to deceive, through every report that shows them."""

from __future__ import annotations

import logging
import shutil
import sys
import traceback
import types
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from conformance import cli
from conformance.observe.loaders import reference
from conformance_fixtures.faults.keys import ODD_KEYS
from conformance_fixtures.write import materialise
from reference_loader import LoadError, from_pretrained, plan

# What may stand in a text as it is: lines, and nothing that moves a cursor or turns the direction.
FORBIDDEN = {*map(chr, range(32)), *map(chr, range(127, 160)), "\u202e", "\u2066"} - {"\n"}


def forgetful(model_class: Any, source: str, **options: Any) -> Any:
    """Does not tell of unexpected keys, so that a report must."""
    model, info = reference(model_class, source, **options)
    return model, info | {"unexpected_keys": set()}


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """The folder, itself of a name of markup."""
    folder = tmp_path / "<b>[red]`mine`"
    return Path(shutil.copytree(materialise("llama-f32", ["odd-keys"]), folder))


@pytest.fixture
def judged(
    hostile: Path,
    tmp_path: Path,
    warm: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[Path, str]:
    """The folder of the run's reports, and what the terminal showed."""
    module = types.ModuleType("forgetful_loader")
    module.loader = forgetful  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "forgetful_loader", module)
    chosen = ("--case", "*/as-saved", "--loader", "forgetful_loader:loader")
    assert cli.main(["check", str(hostile), *chosen, "--out", str(tmp_path / "kept")]) == 1
    streams = capsys.readouterr()
    return tmp_path / "kept", streams.out + streams.err


def test_nothing_moves_the_terminal(judged: tuple[Path, str]) -> None:
    _, shown = judged
    assert "\\x1b[31mred" in shown, "the keys are shown"
    assert not FORBIDDEN & set(shown)


def test_no_report_holds_what_it_shows_raw(judged: tuple[Path, str]) -> None:
    folder, _ = judged
    texts = {path.name: path.read_text("utf-8") for path in folder.iterdir() if path.is_file()}
    assert {"report.jsonl", "report.html", "junit.xml"} <= set(texts)
    for name, text in texts.items():
        assert not FORBIDDEN & set(text), name


class Elements(HTMLParser):
    """Counts elements, and keeps the handlers of events among their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.handlers += [name for name, _ in attributes if name.startswith("on")]


def test_no_key_becomes_an_element_of_the_page(judged: tuple[Path, str]) -> None:
    folder, _ = judged
    page = Elements((folder / "report.html").read_text("utf-8"))
    assert page.names.count("script") == 2
    assert not {"img", "b"} & set(page.names)
    assert page.handlers == []


def test_no_key_ends_an_element_of_junit(judged: tuple[Path, str]) -> None:
    folder, _ = judged
    root = ElementTree.parse(folder / "junit.xml").getroot()
    assert len(root.findall(".//testcase")) == 1
    assert "]]></system-out></testcase>" in "".join(root.itertext())


def test_no_key_is_markdown(judged: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = judged
    assert cli.main(["render", str(folder), "--format", "markdown"]) == 0
    text = capsys.readouterr().out
    assert not FORBIDDEN & set(text)
    outside = [part for part in text.split("```")[::2] for part in part.split("`")[::2]]
    assert not [part for part in outside if "<script>" in part or "@everyone" in part]


@pytest.mark.parametrize("command", ["explain", "explain --check"])
def test_no_explanation_shows_a_key_raw(
    hostile: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main([*command.split(), str(hostile)])
    streams = capsys.readouterr()
    assert "\\x1b[31mred" in streams.out
    assert not FORBIDDEN & set(streams.out + streams.err)


def test_the_reference_logs_no_key_raw(hostile: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "reference_loader"):
        from_pretrained(hostile)
    assert "\\x1b[31mred" in caplog.text
    assert not FORBIDDEN & set("".join(r.getMessage() for r in caplog.records))
    assert not FORBIDDEN & set(str(plan(hostile)))


@pytest.mark.parametrize("fault", ["index-names-escapes", "index-names-markup"])
def test_a_traceback_of_the_reference_is_safe_to_print(
    checkpoint: Callable[..., Path], fault: str
) -> None:
    with pytest.raises(LoadError) as raised:
        from_pretrained(checkpoint("llama-f32-2", fault))
    told = traceback.format_exception_only(raised.value)
    assert not FORBIDDEN & set("".join(told))


def test_the_keys_are_what_they_are_said_to_be() -> None:
    assert FORBIDDEN & set("".join(ODD_KEYS))
    assert any("<script>" in key for key in ODD_KEYS)
    assert any("```" not in key and "`" in key for key in ODD_KEYS)
