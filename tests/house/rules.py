"""The rules of the house: functions from source files to a list of complaints."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from conformance.spec import STAGES

ROOT = Path(__file__).parents[2]
PACKAGES = ("reference_loader", "conformance", "conformance_fixtures")

LONGEST_FUNCTION = 60
LONGEST_FILE = 400
DEEPEST = 4
MOST_ENTRIES = 16

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

Levels = Sequence[tuple[str, ...]]


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

    @cached_property
    def lines(self) -> list[str]:
        return self.path.read_text(encoding="utf-8").splitlines()

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @cached_property
    def imports(self) -> list[Import]:
        return list(imports_of(self))


def modules_under(root: Path, packages: Iterable[str] = PACKAGES) -> dict[str, Module]:
    """Every Python file of the packages under `root`, by dotted name."""
    found = {}
    folders = [root / name for name in packages]
    # A folder that is reached by a link has its files listed under the name of the link.
    for path in sorted(path for folder in folders for path in folder.glob("**/*.py")):
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


def too_long(modules: dict[str, Module], package: str) -> list[str]:
    """Functions and files above the longest allowed. A linear paragraph may be long."""
    long_functions = [
        f"{module.name}:{node.lineno} {node.name}: {length_of(node)} lines"
        for module, node in functions_of(modules, package)
        if length_of(node) > LONGEST_FUNCTION
    ]
    long_files = [
        f"{module.name}: {len(module.lines)} lines"
        for module in modules.values()
        if top(module.name) == package and len(module.lines) > LONGEST_FILE
    ]
    return [*long_functions, *long_files]


def too_deep(modules: dict[str, Module], package: str) -> list[str]:
    """Functions whose blocks are nested deeper than allowed."""
    return [
        f"{module.name}:{node.lineno} {node.name}: {depth_of(node)} blocks deep"
        for module, node in functions_of(modules, package)
        if depth_of(node) > DEEPEST
    ]


def functions_of(
    modules: dict[str, Module], package: str
) -> Iterator[tuple[Module, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for module in modules.values():
        if top(module.name) == package:
            for node in ast.walk(module.tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield module, node


def length_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, docstring aside."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node, clean=False) is not None:
        docstring = node.body[0]
        lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return lines


BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)


def depth_of(node: ast.AST, elif_of: ast.AST | None = None) -> int:
    """How many blocks lie in one another; an `elif` lies beside its `if`, not in it."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        beside = isinstance(node, ast.If) and node.orelse == [child] and isinstance(child, ast.If)
        opens = isinstance(child, BLOCKS) and not beside
        deepest = max(deepest, opens + depth_of(child))
    return deepest


def room(name: str) -> str:
    """`conformance.judge` of `conformance.judge.verdict`: the folder, or the file at the top."""
    return ".".join(name.split(".")[:2])


def upward(modules: dict[str, Module], package: str, levels: Levels) -> list[str]:
    """Imports from a room to one that is not below it, and rooms that have no place."""
    level = {f"{package}.{each}": n for n, names in enumerate(levels) for each in names}
    complaints = []
    for module in of_package(modules, package):
        if room(module.name) not in level:
            complaints.append(f"{room(module.name)} has no place in the order")
            continue
        for name, line in arrows(modules, module):
            there, here = room(name), room(module.name)
            if there in level and there != here and level[there] <= level[here]:
                told = f"{module.name}:{line} imports {name}, which is not below it"
                complaints.append(told)
    return complaints


def of_package(modules: dict[str, Module], package: str) -> list[Module]:
    """Its modules, without its own `__init__`, which is the door and no room."""
    return [m for m in modules.values() if top(m.name) == package and m.name != package]


def arrows(modules: dict[str, Module], module: Module) -> set[tuple[str, int]]:
    """The modules of ours that it imports, for types too, as a drawing of the house shows them."""
    found = set()
    for node in ast.walk(module.tree):
        for name in imported_names(node, module):
            owner = name if name in modules else name.rpartition(".")[0]
            if owner in modules and owner != module.name:
                found.add((owner, getattr(node, "lineno", 0)))
    return {
        (name, line)
        for name, line in found
        # `from package import module` names both; the module is what is meant.
        if not any(other.startswith(f"{name}.") and at == line for other, at in found)
    }


def circles(modules: dict[str, Module]) -> list[str]:
    """Every group of files that import one another in a circle."""
    sorter = TopologicalSorter(
        {name: {each for each, _ in arrows(modules, module)} for name, module in modules.items()}
    )
    try:
        sorter.prepare()
    except CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


def crowded(root: Path, packages: Iterable[str] = PACKAGES) -> list[str]:
    """Folders with more entries than a reader takes in; the files of the stages count as one."""
    complaints = []
    for folder in folders_under(root, packages):
        names = {each.stem for each in folder.iterdir() if not each.name.startswith(("__", "py."))}
        entries = {name for name in names if name.upper() not in STAGES} | (
            {"(the stages)"} if any(name.upper() in STAGES for name in names) else set()
        )
        if len(entries) > MOST_ENTRIES:
            complaints.append(f"{folder.relative_to(root)} has {len(entries)} entries")
    return complaints


def folders_under(root: Path, packages: Iterable[str]) -> list[Path]:
    return [
        folder
        for package in packages
        for folder in [root / package, *sorted((root / package).rglob("*/"))]
        if folder.is_dir() and "__pycache__" not in folder.parts
    ]


def same_names(modules: dict[str, Module], package: str) -> list[str]:
    """File names that stand twice in a package, but for the stages and `__init__`."""
    counted = Counter(
        module.path.name
        for module in modules.values()
        if top(module.name) == package and not module.is_package
    )
    return [n for n, count in counted.items() if count > 1 and Path(n).stem.upper() not in STAGES]


def without_docstring(modules: dict[str, Module]) -> list[str]:
    """Files that do not say their job."""
    return [name for name, module in modules.items() if not ast.get_docstring(module.tree)]


# The independent judge of outputs, which loads nothing, and the signatures of the two public
# functions: a table of options to look up, without a decision in it (test_options.py holds that).
NOT_LOADING = {"reference_loader", "reference_loader.llama"}


def line_count(modules: dict[str, Module], package: str) -> int:
    """Lines of code: without blank lines, comments and docstrings, which nobody should save on."""
    return sum(
        code_lines(module.path.read_text(encoding="utf-8"))
        for module in modules.values()
        if top(module.name) == package and module.name not in NOT_LOADING
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
