"""The plan of the house, held: who may import whom, how long a file and a function may be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.house.rules import (
    COMPUTED,
    PACKAGES,
    ROOT,
    Levels,
    Module,
    arrows,
    circles,
    crowded,
    forbidden_imports,
    left_loaded,
    line_count,
    modules_under,
    not_in_the_target,
    reaches,
    room,
    same_names,
    too_deep,
    too_long,
    top,
    upward,
    without_docstring,
)

# Rooms from the top down: each may import only what stands below it. Rooms of one line are beside
# one another and do not import each other.
LEVELS: dict[str, Levels] = {
    "reference_loader": (
        ("in_place",),
        ("load",),
        ("fill",),
        ("plan",),
        ("model",),
        ("formats",),
        ("source", "llama"),
        ("options", "speed"),
        ("errors",),
    ),
    "conformance": (
        ("__main__",),
        ("cli",),
        ("commands", "plugin"),
        ("bench",),
        ("inspect", "repro", "mutants"),
        ("report", "releases"),
        ("judge",),
        ("observe",),
        ("world",),
        ("cases",),
        ("deviations",),
        ("spec", "results"),
    ),
}
# Downward, and still no business of theirs.
NEVER = {"conformance.report": "conformance.cases"}

# Lines of code of the loader, without the written-out signatures. The design aimed at about 1,500;
# the Hub, placement, damaged files, and a pump in bounded memory, to GPUs too, took it past that; a
# plan that holds every decision added a hundred, and a checkpoint's code, refused or trusted, 180;
# composite configs, classes with rules of their own and configs that fit no class another hundred;
# constructors that need the values of their weights, or share their memory, three hundred; values
# of any type and size for every option and field another hundred; conversions 450; parts of
# quantised weights fifty; a loader in the place of stock, and what a save needs, 160.
REFERENCE_LINES = 4125

NO_TORCH = ("judge.divergences", "results.records", "deviations", "judge.changes")
IN_THE_TARGET = ("observe.observe", "releases.probe")


@pytest.fixture(scope="module")
def ours() -> dict[str, Module]:
    return modules_under(ROOT)


def test_the_three_packages_are_there(ours: dict[str, Module]) -> None:
    assert {top(name) for name in ours} == set(PACKAGES)


def test_the_reference_knows_nothing_of_those_who_judge_it(ours: dict[str, Module]) -> None:
    assert (
        forbidden_imports(ours, "reference_loader", {"conformance", "conformance_fixtures"}) == []
    )


def test_only_four_files_import_transformers(ours: dict[str, Module]) -> None:
    names = ("model", "classes", "conversions", "stock")
    exempt = {f"reference_loader.model.transformers_{name}" for name in names}
    assert forbidden_imports(ours, "reference_loader", {"transformers", COMPUTED}, exempt) == []


def test_fixtures_are_written_without_those_they_test(ours: dict[str, Module]) -> None:
    forbidden = {"transformers", "reference_loader", "conformance", COMPUTED}
    assert forbidden_imports(ours, "conformance_fixtures", forbidden) == []


@pytest.mark.parametrize("name", NO_TORCH)
def test_judging_reaches_no_torch(ours: dict[str, Module], name: str) -> None:
    module = f"conformance.{name}"
    assert reaches(ours, module, {"torch"}.__contains__) == []


@pytest.mark.parametrize("name", IN_THE_TARGET)
def test_what_runs_in_a_target_needs_only_what_is_there(ours: dict[str, Module], name: str) -> None:
    module = f"conformance.{name}"
    assert reaches(ours, module, not_in_the_target) == []


def test_judging_loads_no_torch() -> None:
    statement = (
        "import conformance.judge.divergences, conformance.results.records, conformance.deviations"
    )
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
    transformers_model = "from reference_loader.model.transformers_model import TransformersModel"
    statement = f"{transformers_model}\nimport torch._dynamo"
    assert "torch._dynamo" in left_loaded(statement, ["transformers", *COMPILER])


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_and_files_are_short(ours: dict[str, Module], package: str) -> None:
    assert too_long(ours, package) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_blocks_are_not_nested_deep(ours: dict[str, Module], package: str) -> None:
    assert too_deep(ours, package) == []


@pytest.mark.parametrize("package", LEVELS)
def test_arrows_go_down(ours: dict[str, Module], package: str) -> None:
    assert upward(ours, package, LEVELS[package]) == []


@pytest.mark.parametrize("room_of", NEVER)
def test_some_arrows_are_never_drawn(ours: dict[str, Module], room_of: str) -> None:
    found = [
        f"{module.name}:{line} imports {name}"
        for module in ours.values()
        if room(module.name) == room_of
        for name, line in arrows(ours, module)
        if room(name) == NEVER[room_of]
    ]
    assert found == []


def test_no_file_imports_itself_by_a_circle(ours: dict[str, Module]) -> None:
    assert circles(ours) == []


def test_no_folder_is_crowded() -> None:
    assert crowded(ROOT) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_file_name_stands_once(ours: dict[str, Module], package: str) -> None:
    assert same_names(ours, package) == []


def test_every_file_says_its_job(ours: dict[str, Module]) -> None:
    assert without_docstring(ours) == []


def test_the_reference_is_small(ours: dict[str, Module]) -> None:
    assert line_count(ours, "reference_loader") < REFERENCE_LINES
