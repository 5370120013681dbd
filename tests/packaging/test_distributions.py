"""The wheel and the sdist hold what the packages need at run time, and nothing else."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tests.packaging.environments import (
    PACKAGES,
    PROJECT,
    ROOT,
    build,
    files_of_source,
    files_of_wheel,
    members_of_sdist,
    source_copy,
)

pytestmark = pytest.mark.slow  # `make test-slow`, which CI runs


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return source_copy(tmp_path_factory.mktemp("source") / "tree")


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sdist, and of the wheel that was built from it."""
    out = tmp_path_factory.mktemp("built")
    build(source, out)
    return out


def of_packages(names: set[str]) -> set[str]:
    return {name for name in names if not name.startswith(f"{PROJECT}-")}


def test_the_wheel_holds_the_files_of_the_packages_and_no_other(built: Path) -> None:
    """Templates, clauses, deviations and the marks of typing too; no test, nothing generated."""
    assert of_packages(files_of_wheel(built)) == files_of_source(ROOT)
    assert {name.partition("/")[0] for name in of_packages(files_of_wheel(built))} == set(PACKAGES)


def test_there_is_data_to_miss() -> None:
    data = {name for name in files_of_source(ROOT) if not name.endswith(".py")}
    folders = {name.rpartition("/")[0] for name in data}
    assert folders >= {*PACKAGES, *(f"conformance/{name}" for name in ("spec", "deviations"))}
    assert "conformance/report/templates" in folders


@pytest.mark.parametrize(
    ("line", "lost"),
    [
        ('    "report/templates/*",\n', "conformance/report/templates/bench.svg.j2"),
        ('    "spec/*.toml",\n', "conformance/spec/TIE.toml"),
        ('    "deviations/*.toml",\n', "conformance/deviations/TIE.toml"),
    ],
)
def test_data_that_is_not_declared_is_missed(line: str, lost: str, tmp_path: Path) -> None:
    source = source_copy(tmp_path / "tree")
    declared = (source / "pyproject.toml").read_text("utf-8")
    assert line in declared
    (source / "pyproject.toml").write_text(declared.replace(line, ""), "utf-8")

    build(source, tmp_path / "built", "--wheel")

    assert lost in files_of_source(ROOT) - files_of_wheel(tmp_path / "built")


def test_the_wheel_claims_three_names(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (n for n in opened.namelist() if n.endswith("/top_level.txt"))
        assert opened.read(name).decode().split() == sorted(PACKAGES)


def test_the_sdist_holds_the_fixtures_as_a_real_package(built: Path) -> None:
    """In the checkout it is a link; there is no link in the sdist, and no folder `fixtures`."""
    members = members_of_sdist(built)
    assert (ROOT / "conformance_fixtures").is_symlink()
    assert "conformance_fixtures/faults/index.py" in members
    assert [name for name, member in members.items() if member.issym() or member.islnk()] == []
    assert not [name for name in members if name.startswith(("fixtures", "tests"))]


def test_the_sdist_and_the_source_give_the_same_wheel(
    source: Path, built: Path, tmp_path: Path
) -> None:
    build(source, tmp_path / "direct", "--wheel")
    assert files_of_wheel(tmp_path / "direct") == files_of_wheel(built)
