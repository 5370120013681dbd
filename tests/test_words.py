"""What a user reads is in plain technical English: no phrase of `BANNED` in any of it.

Collected are clauses and stages, every text in a string of the packages (errors, hints, tables,
help), docstrings of errors, the help of the command line, deviations, faults, pages and templates.
Other docstrings and comments are for contributors and are not held to this.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from conformance import cli
from conformance.deviations import Deviation, deviations
from conformance.spec import STAGES, Clause, clauses
from conformance_fixtures.faults import FAULTS

ROOT = Path(__file__).parents[1]
PACKAGES = ("reference_loader", "conformance", "fixtures")
TEMPLATES = ROOT / "conformance"


@dataclass(frozen=True)
class Banned:
    """A phrase, what to write instead, and a text in which it stands."""

    pattern: str
    instead: str
    example: str


BANNED = (
    Banned(
        r"\b(that|which|it|this) (is|are) none\b", "malformed, invalid", "a header that is none"
    ),
    Banned(r"\bis none that\b", "is not one that", "the dtype is none that torch has"),
    Banned(
        r"\bthat lies?\b(?! (in|on|under|outside|beside))", "inconsistent", "an entry that lies"
    ),
    Banned(r"\bnobody\b", "no one; or name who", "a file nobody may read"),
    Banned(
        r"\bweights on disk\b", "disk offload, offloaded weights", "the folder for weights on disk"
    ),
    # In a string that is source code it is a name.
    Banned(r"\btold\b(?! =|[})\]])", "reported, said, named", "what the caller is told"),
    Banned(r"\bsee its mode\b", "Check the file's permissions.", "See its mode."),
    Banned(
        r"\b(is|are) not carried out\b",
        "is not supported by this loader",
        "This conversion is not carried out by this loader.",
    ),
    Banned(r"\bcould (not )?be carried out\b", "supported", "a map that could not be carried out"),
    Banned(r"\bchanges to live with\b", "accepted changes", "changes to live with"),
    Banned(r"\blive[sd]? with\b", "accepts, accepted", "what somebody lives with"),
    Banned(r"\b(cannot|can|not|to) (to )?be had\b", "is missing, is available", "cannot be had"),
    Banned(r"\bis to be had\b", "is available", "what is to be had"),
    Banned(r"\blaid to\b", "attributed to", "a divergence is laid to a clause"),
    Banned(r"\bdoors?\b", "entry point, interface", "behind the door"),
    Banned(
        r"(?<!make )(?<!no )\brooms?\b(?! (on|for|left))", "package, folder", "the rooms below it"
    ),
    Banned(r"\bworlds?\b(?![/.])", "process, environment", "the world of a load"),
    Banned(r"\bhouse (rules?|words?|plan)\b", "project rules", "a rule, of the house rules"),
)

INNOCENT = (
    "dtype=None, and none of the keys matches; if there is none, no folder is needed",
    "the tensor that lies in a shard",
    "conformance/world/ observes the process",
    "Make room on the disk; there is no room left; room for one more shard",
    "offload_folder: the folder for offloaded weights; the weights are on disk",
    "hub_world.py, telltale, indoors, mushrooms",
    "The operation is carried out by fill/.",
)


@dataclass(frozen=True)
class Text:
    """Something that a user reads, and where it stands."""

    where: str
    text: str


# Collectors.


def of_clauses(shown: Iterable[Clause], stages: Mapping[str, str]) -> Iterator[Text]:
    """Titles, statements and sources, and the titles of stages."""
    for clause in shown:
        yield from (
            Text(clause.id, text) for text in (clause.title, clause.statement, clause.source)
        )
    yield from (Text(f"stage {stage}", about) for stage, about in stages.items())


def of_deviations(shown: Iterable[Deviation]) -> Iterator[Text]:
    """Their reasons."""
    yield from (Text(f"deviation {each.id}", each.reason) for each in shown)


def of_faults(statements: Mapping[str, str]) -> Iterator[Text]:
    """What each fault says of itself."""
    yield from (Text(f"fault {name}", statement) for name, statement in statements.items())


def of_strings(root: Path, packages: Iterable[str] = PACKAGES) -> Iterator[Text]:
    """Every string with a space in the sources; of docstrings those of classes in an errors.py."""
    for path in sorted(path for package in packages for path in (root / package).rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        left_out = {id(docstring) for docstring in _docstrings(tree)}
        for node in ast.walk(tree):
            where = f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.ClassDef) and path.name == "errors.py":
                yield Text(where, ast.get_docstring(node) or "")
            if isinstance(node, ast.JoinedStr):
                left_out |= {id(part) for part in node.values}
                yield Text(where, "".join(_fixed(part) for part in node.values))
            elif isinstance(node, ast.Constant) and " " in str(node.value):
                yield Text(where, "" if id(node) in left_out else str(node.value))


def _docstrings(tree: ast.Module) -> Iterator[ast.AST]:
    """Strings that are a statement of their own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def _fixed(part: ast.expr) -> str:
    """What of a part of an f-string is there in every case."""
    return part.value if isinstance(part, ast.Constant) else "{}"  # type: ignore[return-value]


def of_parser(parser: argparse.ArgumentParser) -> Iterator[Text]:
    """Description, epilog, help and metavars, of commands within commands too."""
    yield from (Text(parser.prog, text or "") for text in (parser.description, parser.epilog))
    for action in parser._actions:
        where = f"{parser.prog} {'/'.join(action.option_strings) or action.dest}"
        yield from (Text(where, str(text or "")) for text in (action.help, action.metavar))
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                yield Text(f"{parser.prog} {choice.dest}", choice.help or "")
            for command in dict.fromkeys(action.choices.values()):
                yield from of_parser(command)


def of_pages(paths: Iterable[Path], root: Path) -> Iterator[Text]:
    """The paragraphs of Markdown pages, without what stands as `code`."""
    for path in paths:
        line = 1
        for paragraph in re.split(r"(\n\s*\n)", path.read_text("utf-8")):
            yield Text(f"{path.relative_to(root)}:{line}", re.sub(r"`[^`\n]+`", "``", paragraph))
            line += paragraph.count("\n")


def of_templates(folder: Path, root: Path) -> Iterator[Text]:
    """What templates and scripts of reports say, without their code."""
    for path in sorted([*folder.rglob("*.j2"), *folder.rglob("*.js")]):
        source = path.read_text("utf-8")
        if path.suffix == ".js":
            source = re.sub(r"//[^\n]*|/\*.*?\*/", "", source, flags=re.S)
            strings = re.findall(r"\"[^\"\n]*\"|'[^'\n]*'|`[^`]*`", source)
            parts = [re.sub(r"\$\{[^}]*\}", "{}", string) for string in strings if " " in string]
        else:
            parts = re.sub(
                r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}|<[^>]*>", "\n", source, flags=re.S
            ).split("\n")
        yield from (
            Text(str(path.relative_to(root)), part) for part in parts if " " in part.strip()
        )


# What is wrong.


def complaints(texts: Iterable[Text]) -> list[str]:
    """A line a banned phrase: where it stands, in what, and what to write instead."""
    found = []
    for each in texts:
        text = " ".join(each.text.split())
        for banned in BANNED:
            for match in re.finditer(banned.pattern, text, re.I):
                around = text[max(0, match.start() - 50) : match.end() + 50]
                found.append(f"{each.where}: {match[0]!r} in {around!r}; write: {banned.instead}")
    return found


def command_line() -> Iterator[Text]:
    """All that `conformance --help` and `conformance COMMAND --help` can show."""
    yield from of_parser(cli.top())
    for name in [name for group in cli.COMMANDS.values() for name in group]:
        yield from of_parser(cli.parser(name))


def hold(texts: Iterable[Text]) -> None:
    """Fail with every complaint in full."""
    found = complaints(texts)
    assert not found, "\n".join(["", *found])


def test_clauses_and_stages() -> None:
    hold(of_clauses(clauses().values(), STAGES))


def test_errors_hints_and_every_other_string() -> None:
    hold(of_strings(ROOT))


def test_command_line() -> None:
    hold(command_line())


def test_known_deviations() -> None:
    hold(of_deviations(deviations()))


def test_faults() -> None:
    hold(of_faults({name: each.statement for name, each in FAULTS.items()}))


def test_pages() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    hold(of_pages(pages, ROOT))


def test_templates() -> None:
    hold(of_templates(TEMPLATES, ROOT))


# The rules themselves, and that each collector sees what is planted.

PLANTED = "a header that is none"


@pytest.mark.parametrize("banned", BANNED, ids=lambda each: each.example)
def test_a_banned_phrase_is_seen_in_its_example_and_not_in_what_to_write(banned: Banned) -> None:
    assert complaints([Text("here", banned.example)])
    assert complaints([Text("here", banned.example.upper().replace(" ", "\n "))])
    assert re.search(banned.pattern, banned.example, re.I)
    assert complaints([Text("here", banned.instead)]) == []


@pytest.mark.parametrize("text", INNOCENT)
def test_innocent_words_are_let_be(text: str) -> None:
    assert complaints([Text("here", text)]) == []


def test_a_complaint_says_where_what_and_what_instead() -> None:
    (complaint,) = complaints([Text("a.py:3", f"It has {PLANTED}.")])
    assert complaint.startswith("a.py:3: 'that is none' in ")
    assert complaint.endswith("write: malformed, invalid")


@pytest.mark.parametrize("field", ["title", "statement", "source"])
def test_a_phrase_in_a_clause_is_seen(field: str) -> None:
    changed: dict[str, Any] = {field: PLANTED}
    clause = replace(clauses()["TIE-1"], **changed)
    assert len(complaints(of_clauses([clause], {}))) == 1


def test_a_phrase_in_a_stage_is_seen() -> None:
    assert complaints(of_clauses([], {"TIE": PLANTED}))


def test_a_phrase_in_a_deviation_is_seen() -> None:
    assert complaints(of_deviations([replace(deviations()[0], reason=PLANTED)]))


def test_a_phrase_in_a_fault_is_seen() -> None:
    assert complaints(of_faults({"a-fault": PLANTED}))


@pytest.mark.parametrize(
    "source",
    [
        f"raise BadHeader('{PLANTED}')",
        f"raise BadHeader(path, hint='{PLANTED}')",
        f"raise BadHeader(f'{{path}}: {PLANTED}')",
        "raise BadHeader(f'{path}: a header that is '\n  'none')",
        f"def f():\n    text = '{PLANTED}'\n    raise BadHeader(text)",
        f"parser.add_argument('--x', help='{PLANTED}')",
        f"table.add_column('{PLANTED}')",
    ],
)
def test_a_phrase_in_a_string_is_seen(tmp_path: Path, source: str) -> None:
    (tmp_path / "ours" / "within").mkdir(parents=True)
    (tmp_path / "ours" / "within" / "a.py").write_text(source, "utf-8")
    (complaint,) = complaints(of_strings(tmp_path, ["ours"]))
    assert complaint.startswith("ours/within/a.py:")


def test_a_phrase_in_the_docstring_of_an_error_is_seen(tmp_path: Path) -> None:
    source = f"class BadHeader(ValueError):\n    '''It has\n    {PLANTED}.'''"
    (tmp_path / "errors.py").write_text(source, "utf-8")
    assert len(complaints(of_strings(tmp_path, ["."]))) == 1


@pytest.mark.parametrize(
    "source",
    [f"'''{PLANTED}'''", f"def f():\n    '''{PLANTED}'''", f"# {PLANTED}", "told = 'told'"],
)
def test_what_only_contributors_read_is_let_be(tmp_path: Path, source: str) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "a.py").write_text(source, "utf-8")
    assert complaints(of_strings(tmp_path, ["ours"])) == []


@pytest.mark.parametrize("field", ["help", "metavar"])
def test_a_phrase_in_an_argument_is_seen(field: str) -> None:
    parser = argparse.ArgumentParser("outer")
    command = parser.add_subparsers().add_parser("inner")
    given: dict[str, Any] = {field: PLANTED}
    command.add_argument("--x", **given)
    (complaint,) = complaints(of_parser(parser))
    assert complaint.startswith("outer inner --x:")


def test_a_phrase_in_the_help_of_a_command_is_seen() -> None:
    parser = argparse.ArgumentParser("outer", description=PLANTED, epilog=PLANTED)
    parser.add_subparsers().add_parser("inner", help=PLANTED, description=PLANTED)
    assert len(complaints(of_parser(parser))) == 4


def test_the_whole_command_line_is_walked() -> None:
    seen = {each.where for each in command_line()}
    assert {"conformance", "conformance check --case", "conformance spec --out"} <= seen


def test_a_phrase_in_a_page_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\nText, and a header that\nis none.\n\nMore.\n", "utf-8")
    (complaint,) = complaints(of_pages([page], tmp_path))
    assert complaint.startswith("page.md:3:")
    page.write_text("# Page\n\nThe case `a header that is none`.\n", "utf-8")
    assert complaints(of_pages([page], tmp_path)) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("page.html.j2", f"<p>{{{{ told }}}} {PLANTED}</p>"),
        ("page.js", f'const told = 1;\nh("p", {{}}, "{PLANTED}")'),
        ("page.js", f"h(`${{told}} {PLANTED}`)"),
    ],
)
def test_a_phrase_in_a_template_is_seen(tmp_path: Path, name: str, source: str) -> None:
    (tmp_path / name).write_text(source, "utf-8")
    assert len(complaints(of_templates(tmp_path, tmp_path))) == 1
