"""The source of our definitions with everything they need, as one text without our packages.

A script needs some of about ninety definitions from eight files. One file with all of them
would have to repeat the code with which the conformance suite itself observes.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

OURS = ("conformance", "conformance_fixtures", "reference_loader")

# Comments for our own linters only.
_MARK = re.compile(r"  # (noqa|type: ignore)\b.*")


class NameTaken(RuntimeError):
    """Two modules define the same name, which one text cannot hold."""


@dataclass(frozen=True)
class _Module:
    """One of our source files: its lines, and where each name comes from.

    Attributes:
        lines: of the file.
        defined: name to the statement that defines it.
        imported: name to (module, name there, "" for the module itself).
    """

    lines: list[str]
    defined: dict[str, ast.stmt] = field(default_factory=dict)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)


class Bundle:
    """Definitions in an order in which they can be executed, and the imports they need.

    Attributes:
        imports: the lines, sorted.
    """

    def __init__(self) -> None:
        self._homes: dict[str, str] = {}
        self._texts: dict[tuple[str, int], str] = {}
        self._taken: set[tuple[str, int]] = set()
        self._imported_names: set[str] = set()

    @property
    def imports(self) -> list[str]:
        """The import lines that the bundled source needs, each module's names together."""
        return _drawn_together(self._imported_names)

    def take(self) -> list[str]:
        """The bundled definitions that were added since the last call."""
        fresh = [place for place in self._texts if place not in self._taken]
        self._taken.update(fresh)
        return [self._texts[place] for place in fresh]

    def add(self, module: str, *names: str) -> None:
        """Add to the bundle: these definitions of the module, and everything that they refer to.

        Raises:
            NameTaken: a name is already defined by another module.
        """
        for name in names:
            self._add(module, name)

    def imported(self, module: str, name: str) -> None:
        """Have the bundle import a name from another package."""
        self._imported_names.add(f"from {module} import {name}")

    def _add(self, module: str, name: str) -> None:
        """Add one name of a module to the bundle, whether it defines or imports it."""
        read = _read_module(module)
        if name in read.imported:
            self._follow(name, *read.imported[name])
        elif name in read.defined:
            if self._homes.setdefault(name, module) != module:
                raise NameTaken(f"{name} is defined in {self._homes[name]} and in {module}")
            self._define(module, read, read.defined[name])

    def _follow(self, name: str, module: str, original: str) -> None:
        """Bundle a name where it comes from, or import it if that is another package."""
        if module.partition(".")[0] in OURS:
            self._add(module, original)
        elif original:
            alias = "" if name == original else f" as {name}"
            self._imported_names.add(f"from {module} import {original}{alias}")
        else:
            self._imported_names.add(f"import {module}" + ("" if name == module else f" as {name}"))

    def _define(self, module: str, read: _Module, statement: ast.stmt) -> None:
        """Bundle a definition, after everything that it needs."""
        place = (module, statement.lineno)
        if place in self._texts:
            return
        self._texts[place] = ""  # a definition that refers to itself comes here again
        for name in _names_read(statement):
            self._add(module, name)
        del self._texts[place]  # it goes after everything that it needs
        self._texts[place] = _text_of(read.lines, statement)


@cache
def _read_module(module: str) -> _Module:
    """The source of one of our modules, to bundle its definitions."""
    source = Path(str(importlib.import_module(module).__file__)).read_text("utf-8")
    read = _Module(source.splitlines())
    for statement in ast.parse(source).body:
        for name, origin in _imported_names(statement):
            read.imported[name] = origin
        for name in _defined_names(statement):
            read.defined[name] = statement
    return read


def _imported_names(statement: ast.stmt) -> Iterator[tuple[str, tuple[str, str]]]:
    """The names that a statement of the source imports, and where from."""
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            yield alias.asname or alias.name.partition(".")[0], (alias.name, "")
    elif isinstance(statement, ast.ImportFrom) and statement.module != "__future__":
        for alias in statement.names:
            yield alias.asname or alias.name, (str(statement.module), alias.name)


def _defined_names(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement of the source defines."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        yield statement.name
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
    for target in targets:
        yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))


def _names_read(statement: ast.stmt) -> list[str]:
    """The names that a statement of the source reads, in order."""
    found = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
    return list(dict.fromkeys(node.id for node in found if isinstance(node.ctx, ast.Load)))


def _text_of(lines: list[str], statement: ast.stmt) -> str:
    """A statement's source lines, with decorators and the comment right above."""
    decorators = getattr(statement, "decorator_list", [])
    first = min(node.lineno for node in [statement, *decorators]) - 1
    while first and lines[first - 1].startswith("#"):
        first -= 1
    return "\n".join(_MARK.sub("", line) for line in lines[first : statement.end_lineno])


def _drawn_together(imports: Iterable[str]) -> list[str]:
    """The bundle's `from x import a` and `from x import b` as one line; plain imports first."""
    plain = sorted(line for line in imports if line.startswith("import "))
    names: dict[str, list[str]] = {}
    for line in sorted(imports):
        start, found, name = line.partition(" import ")
        if found:
            names.setdefault(start, []).append(name)
    return [*plain, *(f"{start} import {', '.join(held)}" for start, held in names.items())]
