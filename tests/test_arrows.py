"""Who may import whom, and how long a function may be: the plan of the house, held.

Every rule is a function from source files to a list of complaints. Each is applied to our three
packages, and to a planted bad source that proves it can complain.
"""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("reference_loader", "conformance", "fixtures")

MEDIAN_LENGTH = 15
LONGEST_FUNCTION = 45
# The house plan aims at about 1,500; the Hub, placement, damage, and a pump in bounded memory, to
# GPUs too, by reads past the page cache where it is cold, took it past that.
REFERENCE_LINES = 2300

NO_TORCH = ("compare", "records", "deviations", "changes")
IN_THE_TARGET = ("observe", "probe")
# What is there wherever transformers is: itself, what it stands on, and what it needs to place a
# model on devices.
TARGET_HAS = {
    "torch",
    "safetensors",
    "transformers",
    "accelerate",
    "huggingface_hub",
    "numpy",
    "packaging",
    "tqdm",
}
COMPUTED = "<computed>"  # the name of a module that only the running program knows


# Reading the sources.


@dataclass(frozen=True)
class Import:
    """One import of `name` at `line`; `eager` if importing the file is enough to make it happen."""

    name: str
    line: int
    eager: bool


@dataclass(frozen=True)
class Module:
    """One of our source files, by its dotted name."""

    name: str
    path: Path

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"), str(self.path))

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @cached_property
    def imports(self) -> list[Import]:
        return list(imports_of(self))


def modules_under(root: Path, packages: Iterable[str] = PACKAGES) -> dict[str, Module]:
    """Every Python file of the packages under `root`, by dotted name."""
    found = {}
    for path in sorted(path for name in packages for path in (root / name).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path)
    return found


def imports_of(module: Module) -> Iterator[Import]:
    """Every import in the file, inside functions and by string too; not under TYPE_CHECKING."""
    waiting: list[tuple[ast.AST, bool]] = [(module.tree, True)]
    while waiting:
        node, eager = waiting.pop()
        for name in imported_names(node, module):
            yield Import(name, getattr(node, "lineno", 0), eager)
        inner = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
        waiting.extend((child, eager and not isinstance(node, inner)) for child in below(node))


def below(node: ast.AST) -> Iterable[ast.AST]:
    """The parts of a node, but of `if TYPE_CHECKING` only what runs when it is false."""
    if isinstance(node, ast.If) and ast.unparse(node.test).split(".")[-1] == "TYPE_CHECKING":
        return node.orelse
    return ast.iter_child_nodes(node)


def imported_names(node: ast.AST, module: Module) -> list[str]:
    """The names of the modules, or of things in them, that this one node imports."""
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom():
            base = absolute(node.module or "", node.level, module)
            return [base, *(f"{base}.{alias.name}" for alias in node.names)]
        case ast.Call(func=func, args=[first, *_]) if called(func) in (
            "import_module",
            "__import__",
        ):
            return [string_import(first, module)]
    return []


def called(func: ast.expr) -> str:
    return func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")


def absolute(name: str, level: int, module: Module) -> str:
    """The dotted name that a relative import of `level` dots means in this module."""
    if level == 0:
        return name
    parts = module.name.split(".")
    kept = parts[: len(parts) - level + module.is_package]
    return ".".join([*kept, *filter(None, [name])])


def string_import(argument: ast.expr, module: Module) -> str:
    """What `import_module(argument)` imports, as far as the source says: its constant beginning."""
    match argument:
        case ast.Constant(value=str(name)):
            dots = len(name) - len(name.lstrip("."))
            return absolute(name[dots:], dots, module)
        case ast.JoinedStr(values=[ast.Constant(value=str(start)), *_]) if "." in start:
            return start.rpartition(".")[0]
        case ast.BinOp(left=ast.Constant(value=str(start))) if "." in start:
            return start.rpartition(".")[0]
    return COMPUTED


def top(name: str) -> str:
    return name.partition(".")[0]


# The rules.


def forbidden_imports(
    modules: dict[str, Module], package: str, forbidden: Iterable[str], exempt: Iterable[str] = ()
) -> list[str]:
    """Imports, anywhere in the package but the exempt modules, of a forbidden package."""
    return [
        f"{module.name}:{each.line} imports {each.name}"
        for module in modules.values()
        if top(module.name) == package and module.name not in exempt
        for each in module.imports
        if top(each.name) in forbidden
    ]


def reached(modules: dict[str, Module], start: str) -> dict[str, list[str]]:
    """Every name that importing and running `start` may import, with the way there.

    Of the `__init__` of a package on the way only what happens at its import counts: it is the door
    to the module, not the module.
    """
    ways: dict[str, list[str]] = {start: [start]}
    waiting = [start]
    while waiting:
        name = waiting.pop(0)
        whole = name == start or not modules[name].is_package
        for onward in sorted(leads_to(modules, name, whole)):
            if onward not in ways:
                ways[onward] = [*ways[name], onward]
                waiting.extend([onward] if onward in modules else [])
    return ways


def leads_to(modules: dict[str, Module], name: str, whole: bool) -> set[str]:
    """The next names: what is imported, and every package that holds one of these or this."""
    names = {each.name for each in modules[name].imports if whole or each.eager} | {name}
    parents = {
        ".".join(each.split(".")[:n]) for each in names for n in range(1, each.count(".") + 1)
    }
    return (names | parents) - {name}


def reaches(modules: dict[str, Module], start: str, forbidden: Callable[[str], bool]) -> list[str]:
    """The ways from a module to a forbidden top-level package, one for each such package."""
    ways: dict[str, list[str]] = {}
    for name, way in reached(modules, start).items():
        if forbidden(top(name)):
            ways.setdefault(top(name), way)
    return [" -> ".join(way) for way in ways.values()]


def not_in_the_target(package: str) -> bool:
    """A package that an environment holding nothing but a transformers release may lack."""
    ours_or_theirs = {*PACKAGES, *TARGET_HAS, *sys.stdlib_module_names, COMPUTED, ""}
    return package not in ours_or_theirs


def function_lengths(modules: dict[str, Module], package: str) -> dict[str, int]:
    """Lines of each function from `def` to its end, docstring aside."""
    return {
        f"{module.name}:{node.lineno} {node.name}": length_of(node)
        for module in modules.values()
        if top(module.name) == package
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def length_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node, clean=False) is not None:
        docstring = node.body[0]
        lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return lines


def too_long(modules: dict[str, Module], package: str) -> list[str]:
    """Functions above the longest allowed, and the median if it is above its own limit."""
    lengths = function_lengths(modules, package)
    complaints = [f"{at}: {n} lines" for at, n in lengths.items() if n > LONGEST_FUNCTION]
    median = statistics.median(lengths.values()) if lengths else 0
    if median > MEDIAN_LENGTH:
        complaints.append(f"{package}: median function of {median} lines")
    return complaints


# Lives with the loader and loads nothing: the independent judge of outputs.
JUDGES = {"reference_loader.llama"}


def line_count(modules: dict[str, Module], package: str) -> int:
    """Lines of code: without blank lines, comments and docstrings, which nobody should save on."""
    return sum(
        code_lines(module.path.read_text(encoding="utf-8"))
        for module in modules.values()
        if top(module.name) == package and module.name not in JUDGES
    )


def code_lines(source: str) -> int:
    tree = ast.parse(source)
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, holders) and ast.get_docstring(node) is not None:
            docstrings.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return sum(
        bool(line.strip()) and not line.lstrip().startswith("#") and number not in docstrings
        for number, line in enumerate(source.splitlines(), start=1)
    )


def left_loaded(statement: str, packages: Iterable[str], root: Path = ROOT) -> list[str]:
    """Which of the packages are loaded once a fresh interpreter has carried out the statement."""
    program = f"import sys\n{statement}\nprint(*(p for p in {tuple(packages)} if p in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# The rules held.


@pytest.fixture(scope="module")
def ours() -> dict[str, Module]:
    return modules_under(ROOT)


def test_the_three_packages_are_there(ours: dict[str, Module]) -> None:
    assert {top(name) for name in ours} == set(PACKAGES)


def test_the_reference_knows_nothing_of_those_who_judge_it(ours: dict[str, Module]) -> None:
    assert forbidden_imports(ours, "reference_loader", {"conformance", "fixtures"}) == []


def test_only_the_adapter_imports_transformers(ours: dict[str, Module]) -> None:
    exempt = {"reference_loader.architecture"}
    assert forbidden_imports(ours, "reference_loader", {"transformers", COMPUTED}, exempt) == []


def test_fixtures_are_written_without_those_they_test(ours: dict[str, Module]) -> None:
    forbidden = {"transformers", "reference_loader", "conformance", COMPUTED}
    assert forbidden_imports(ours, "fixtures", forbidden) == []


@pytest.mark.parametrize("name", NO_TORCH)
def test_judging_reaches_no_torch(ours: dict[str, Module], name: str) -> None:
    module = f"conformance.{name}"
    if module not in ours:
        pytest.skip(f"{module} is not written yet")
    assert reaches(ours, module, {"torch"}.__contains__) == []


@pytest.mark.parametrize("name", IN_THE_TARGET)
def test_what_runs_in_a_target_needs_only_what_is_there(ours: dict[str, Module], name: str) -> None:
    module = f"conformance.{name}"
    if module not in ours:
        pytest.skip(f"{module} is not written yet")
    assert reaches(ours, module, not_in_the_target) == []


def test_judging_loads_no_torch() -> None:
    statement = "import conformance.compare, conformance.records, conformance.deviations"
    assert left_loaded(statement, ["torch", "transformers"]) == []


# What an import of torch leaves to those who compile.
COMPILER = ("torch._dynamo", "torch._inductor")


def test_importing_the_reference_leaves_transformers_and_compilers_out() -> None:
    assert left_loaded("import reference_loader", ["transformers", *COMPILER]) == []


def test_a_plain_llama_never_needs_transformers(checkpoint: Callable[..., Path]) -> None:
    """As stored, and cast."""
    statement = (
        "from reference_loader import from_pretrained\n"
        "from reference_loader.llama import Llama\n"
        f"folder = {str(checkpoint('llama-f32-7'))!r}\n"
        "for dtype in ('auto', 'bfloat16'):\n"
        "    from_pretrained(folder, model_class=Llama, dtype=dtype)"
    )
    unwanted = ["transformers", "accelerate", "huggingface_hub", *COMPILER]
    assert left_loaded(statement, unwanted) == []


def test_what_is_imported_is_seen() -> None:
    statement = "from reference_loader.architecture import _config_folder\nimport torch._dynamo"
    assert "torch._dynamo" in left_loaded(statement, ["transformers", *COMPILER])


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_are_short(ours: dict[str, Module], package: str) -> None:
    assert too_long(ours, package) == []


def test_the_reference_is_small(ours: dict[str, Module]) -> None:
    assert line_count(ours, "reference_loader") < REFERENCE_LINES


# The rules can fail.


def planted(root: Path, **sources: str) -> dict[str, Module]:
    """Modules of the given sources; `__` in a name stands for the dot."""
    for name, source in sources.items():
        path = root.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(source, encoding="utf-8")
    return modules_under(root)


@pytest.mark.parametrize(
    "source",
    [
        "import transformers",
        "import transformers.models.bert as bert",
        "from transformers import AutoModel",
        "from transformers.utils import logging",
        "def f():\n    import transformers",
        "class C:\n    async def f(self):\n        from transformers import AutoModel",
        "try:\n    import transformers\nexcept ImportError:\n    pass",
        "import importlib\nimportlib.import_module('transformers')",
        "import importlib as i\nf = lambda: i.import_module('transformers.models.bert')",
        "from importlib import import_module\nimport_module(f'transformers.models.{1}')",
        "from importlib import import_module\nimport_module('transformers.models.' + 'bert')",
        "__import__('transformers')",
        "from importlib import import_module\nimport_module('trans' + 'formers')",
        "import typing\nif typing.TYPE_CHECKING:\n    pass\nelse:\n    import transformers",
    ],
)
def test_an_import_is_seen_in_any_form(tmp_path: Path, source: str) -> None:
    modules = planted(tmp_path, reference_loader__bad=source)
    complaints = forbidden_imports(modules, "reference_loader", {"transformers", COMPUTED})
    assert complaints
    exempt = {"reference_loader.bad"}
    assert forbidden_imports(modules, "reference_loader", {"transformers", COMPUTED}, exempt) == []


@pytest.mark.parametrize(
    "source",
    [
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from transformers import Auto",
        "import typing\nif typing.TYPE_CHECKING:\n    import transformers",
        "'import transformers'\n# import transformers\nloaded = 'transformers' in globals()",
        "import transformers_lookalike",
    ],
)
def test_what_imports_nothing_is_let_be(tmp_path: Path, source: str) -> None:
    modules = planted(tmp_path, reference_loader__good=source)
    assert forbidden_imports(modules, "reference_loader", {"transformers", COMPUTED}) == []


def test_a_relative_import_means_its_own_package(tmp_path: Path) -> None:
    modules = planted(
        tmp_path,
        conformance__sub__a="from .. import b\nfrom ..c import thing\nfrom . import d",
        conformance__e="from . import compare\nfrom .records import Record",
    )
    assert {each.name for each in modules["conformance.sub.a"].imports} >= {
        "conformance.b",
        "conformance.c.thing",
        "conformance.sub.d",
    }
    assert {each.name for each in modules["conformance.e"].imports} >= {
        "conformance.compare",
        "conformance.records.Record",
    }


@pytest.mark.parametrize(
    ("compare", "package"),
    [
        ("import torch", ""),
        ("def f():\n    import torch.nn", ""),
        ("from conformance import helper", ""),
        ("from conformance.helper import torch_thing", ""),
        ("from . import helper", ""),
        ("x = 1", "import torch"),
        ("x = 1", "from conformance.helper import thing"),
    ],
)
def test_torch_is_seen_at_the_end_of_any_way(tmp_path: Path, compare: str, package: str) -> None:
    helper = "def late():\n    from torch import nn"
    planted(tmp_path, conformance__compare=compare, conformance__helper=helper)
    (tmp_path / "conformance" / "__init__.py").write_text(package, encoding="utf-8")
    (way,) = reaches(modules_under(tmp_path), "conformance.compare", {"torch"}.__contains__)
    assert way.startswith("conformance.compare")
    assert "-> torch" in way


def test_a_door_that_opens_onto_torch_only_when_asked_is_let_be(tmp_path: Path) -> None:
    planted(tmp_path, conformance__compare="from conformance import records")
    door = tmp_path / "conformance" / "__init__.py"
    door.write_text("def __getattr__(name):\n    import torch", encoding="utf-8")
    assert reaches(modules_under(tmp_path), "conformance.compare", {"torch"}.__contains__) == []


def test_what_a_target_lacks_is_seen(tmp_path: Path) -> None:
    modules = planted(
        tmp_path,
        conformance__probe="import json, torch\nfrom conformance import show",
        conformance__show="def table():\n    import rich.table",
    )
    assert reaches(modules, "conformance.probe", not_in_the_target) == [
        "conformance.probe -> conformance.show -> rich"
    ]


def test_what_a_statement_loads_is_seen(tmp_path: Path) -> None:
    planted(tmp_path, conformance__compare="import json.tool")
    statement = "import conformance.compare"
    assert left_loaded(statement, ["json", "plistlib"], root=tmp_path) == ["json"]


def body(lines: int) -> str:
    return "".join(f"    x = {n}\n" for n in range(lines - 1))


def test_a_long_function_is_seen(tmp_path: Path) -> None:
    short = "def short():\n" + body(LONGEST_FUNCTION)
    brief = "".join(f"def brief{n}():\n{body(3)}" for n in range(3))
    modules = planted(tmp_path, fixtures__a=short + brief)
    assert too_long(modules, "fixtures") == []
    modules = planted(tmp_path, fixtures__a=short + "    y = 1\n" + brief)
    assert too_long(modules, "fixtures") == [f"fixtures.a:1 short: {LONGEST_FUNCTION + 1} lines"]


def test_a_docstring_is_not_length(tmp_path: Path) -> None:
    docstring = '    """One.\n' + "\n" * LONGEST_FUNCTION + '    """\n'
    modules = planted(tmp_path, fixtures__a="def f():\n" + docstring + body(3))
    assert list(function_lengths(modules, "fixtures").values()) == [3]


def test_a_high_median_is_seen(tmp_path: Path) -> None:
    source = "".join(f"def f{n}():\n{body(MEDIAN_LENGTH + 1)}" for n in range(3))
    modules = planted(tmp_path, fixtures__a=source)
    (complaint,) = too_long(modules, "fixtures")
    assert "median" in complaint


def test_lines_are_counted(tmp_path: Path) -> None:
    source = '"""Two\nlines."""\n\n# why\n' + "x = 1\n" * 7
    modules = planted(tmp_path, reference_loader__a=source, fixtures__b="y = 1\n" * 5)
    assert line_count(modules, "reference_loader") == 7
