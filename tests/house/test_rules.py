"""Every rule of the house is applied to a bad source, and complains."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house.rules import (
    COMPUTED,
    DEEPEST,
    LONGEST_FILE,
    LONGEST_FUNCTION,
    MOST_ENTRIES,
    Levels,
    Module,
    circles,
    crowded,
    forbidden_imports,
    left_loaded,
    line_count,
    modules_under,
    not_in_the_target,
    reaches,
    same_names,
    too_deep,
    too_long,
    upward,
    without_docstring,
)


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
    modules = planted(tmp_path, conformance__a=short)
    assert too_long(modules, "conformance") == []
    modules = planted(tmp_path, conformance__a=short + "    y = 1\n")
    told = f"conformance.a:1 short: {LONGEST_FUNCTION + 1} lines"
    assert too_long(modules, "conformance") == [told]


def test_a_docstring_is_not_length(tmp_path: Path) -> None:
    docstring = '    """One.\n' + "\n" * LONGEST_FUNCTION + '    """\n'
    modules = planted(tmp_path, conformance__a="def f():\n" + docstring + body(3))
    assert too_long(modules, "conformance") == []


def test_a_long_file_is_seen(tmp_path: Path) -> None:
    modules = planted(tmp_path, conformance__a="x = 1\n" * (LONGEST_FILE + 1))
    assert too_long(modules, "conformance") == [f"conformance.a: {LONGEST_FILE + 1} lines"]


def nested(depth: int) -> str:
    lines = [f"{'    ' * (n + 1)}if x:" for n in range(depth)]
    return "\n".join(["def f(x):", *lines, f"{'    ' * (depth + 1)}pass\n"])


def test_a_deep_block_is_seen(tmp_path: Path) -> None:
    assert too_deep(planted(tmp_path, conformance__a=nested(DEEPEST)), "conformance") == []
    deep = planted(tmp_path, conformance__a=nested(DEEPEST + 1))
    assert too_deep(deep, "conformance") == [f"conformance.a:1 f: {DEEPEST + 1} blocks deep"]


def test_an_elif_is_not_deeper_than_its_if(tmp_path: Path) -> None:
    branches = "".join(f"    elif x == {n}:\n        pass\n" for n in range(9))
    source = "def f(x):\n    if x:\n        pass\n" + branches
    assert too_deep(planted(tmp_path, conformance__a=source), "conformance") == []


HOUSE: Levels = (("top",), ("beside", "twin"), ("low",))


@pytest.mark.parametrize(
    ("low", "complaint"),
    [
        ("from conformance.top import thing", "conformance.top"),
        ("def f():\n    from conformance.top import thing", "conformance.top"),
        (
            "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    from conformance.top import thing",
            "conformance.top",
        ),
        ("from conformance import top", "conformance.top"),
    ],
)
def test_an_arrow_upwards_is_seen(tmp_path: Path, low: str, complaint: str) -> None:
    planted(tmp_path, conformance__top__a="from conformance.low.b import thing")
    modules = planted(tmp_path, conformance__low__b=low)
    (found,) = upward(modules, "conformance", HOUSE)
    assert complaint in found


def test_an_arrow_between_rooms_of_one_line_is_seen(tmp_path: Path) -> None:
    planted(tmp_path, conformance__twin__a="x = 1")
    modules = planted(tmp_path, conformance__beside__b="from conformance.twin.a import x")
    assert upward(modules, "conformance", HOUSE)


def test_a_room_without_a_place_is_seen(tmp_path: Path) -> None:
    modules = planted(tmp_path, conformance__new__a="x = 1")
    assert "conformance.new has no place in the order" in upward(modules, "conformance", HOUSE)


def test_a_circle_is_seen(tmp_path: Path) -> None:
    planted(tmp_path, conformance__low__a="from conformance.low.b import x")
    modules = planted(tmp_path, conformance__low__b="def f():\n    from conformance.low import a")
    (circle,) = circles(modules)
    assert "conformance.low.a" in circle and "conformance.low.b" in circle


def test_a_crowd_is_seen(tmp_path: Path) -> None:
    many = {f"conformance__low__m{n}": "" for n in range(MOST_ENTRIES)}
    stages = {f"conformance__low__{name}": "" for name in ("tie", "map")}
    planted(tmp_path, **many)
    assert crowded(tmp_path, ["conformance"]) == []
    planted(tmp_path, **stages)
    assert crowded(tmp_path, ["conformance"]) == ["conformance/low has 17 entries"]


def test_a_name_that_stands_twice_is_seen(tmp_path: Path) -> None:
    planted(tmp_path, conformance__low__tie="", conformance__top__tie="", conformance__low__a="")
    assert same_names(modules_under(tmp_path), "conformance") == []
    assert same_names(planted(tmp_path, conformance__top__a=""), "conformance") == ["a.py"]


def test_a_file_that_says_nothing_is_seen(tmp_path: Path) -> None:
    modules = planted(tmp_path, conformance__low__a="x = 1", conformance__low__b='"""Said."""')
    assert "conformance.low.a" in without_docstring(modules)
    assert "conformance.low.b" not in without_docstring(modules)


def test_lines_are_counted(tmp_path: Path) -> None:
    source = '"""Two\nlines."""\n\n# why\n' + "x = 1\n" * 7
    modules = planted(tmp_path, reference_loader__a=source, conformance__b="y = 1\n" * 5)
    assert line_count(modules, "reference_loader") == 7
