"""pytest plugin: every case is an item, its id the case id.

`pytest --pyargs conformance` judges the installed transformers; in another project's run
`--conformance` adds the cases, and `--conformance-checkpoint DIR` judges checkpoints of one's own.
Imports torch only once there is a case to run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conformance.cases.case import Case
    from conformance.judge.session import Session
    from conformance.results.records import Result

COLLECTED = Path(__file__).parent / "cases" / "catalogue.py"

# The name of that file where it lies outside of pytest's root folder.
OUTSIDE = "conformance/cases.py"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the pytest plugin."""
    group = parser.getgroup("conformance", "hold from_pretrained against its specification")
    group.addoption("--conformance", action="store_true", help="add the conformance cases")
    group.addoption("--conformance-loader", default="stock", metavar="stock|reference|MODULE:ATTR")
    group.addoption("--conformance-case", action="append", default=[], metavar="GLOB")
    group.addoption("--conformance-clause", action="append", default=[], metavar="ID")
    group.addoption("--conformance-checkpoint", action="append", default=[], metavar="DIR")
    group.addoption("--conformance-model-class", default="", metavar="MODULE:ATTR")


def pytest_configure(config: pytest.Config) -> None:
    """With `--conformance`, have pytest collect the cases besides what was named."""
    if config.getoption("--conformance") or config.getoption("--conformance-checkpoint"):
        config.args.append(str(COLLECTED))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """`conformance/cases.py` holds the cases."""
    if file_path == COLLECTED:
        inside = file_path.is_relative_to(parent.config.rootpath)
        return Cases.from_parent(parent, path=file_path, nodeid=None if inside else OUTSIDE)
    return None


class Cases(pytest.File):
    """The cases that the options select."""

    def collect(self) -> Iterator[pytest.Item]:
        """The cases that pytest's options select, as items."""

        from conformance.cases.catalogue import CASES, select
        from conformance.cases.own import Own, own_cases
        from conformance.observe.loaders import UnknownLoader, find
        from conformance.spec import clauses
        from conformance_fixtures.tokens import BadToken

        option = self.config.getoption
        unknown = set(option("--conformance-clause")) - clauses().keys()
        if unknown:
            raise pytest.UsageError(f"there is no clause {', '.join(sorted(unknown))}")
        try:
            find(option("--conformance-loader"))
        except UnknownLoader as error:
            raise pytest.UsageError(str(error)) from error
        folders = tuple(Path(folder) for folder in option("--conformance-checkpoint"))
        offered = own_cases(Own(folders, option("--conformance-model-class"))) or list(CASES)
        try:
            chosen = select(offered, option("--conformance-case"), option("--conformance-clause"))
        except BadToken as error:
            raise pytest.UsageError(f"--conformance-case: {error}") from error
        if not chosen:
            wanted = [*option("--conformance-case"), *option("--conformance-clause")]
            raise pytest.UsageError(f"no conformance case matches {wanted}")
        for case in chosen:
            yield CaseItem.from_parent(self, name=case.id, case=case)


class CaseItem(pytest.Item):
    """One case."""

    def __init__(self, *, case: Case, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.case = case

    def runtest(self) -> None:
        """Judge the case as pytest's item: a divergence fails, a known deviation is an xfail."""

        from conformance.judge.session import judge
        from conformance.results.records import DIVERGE, ERROR, KNOWN, SKIP

        result = judge(self.case, _session(self.config))
        self.user_properties.append(("digest", result.digest))
        if result.status in (DIVERGE, ERROR):
            raise CaseFailed(result)
        if result.status == SKIP:
            pytest.skip(result.reason)
        if result.status == KNOWN:
            pytest.xfail(f"known deviation {result.deviation}: {result.reason}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The explanation of a case that failed in pytest."""

        from conformance.report.explanation import explanation

        if isinstance(excinfo.value, CaseFailed):
            return "\n".join(explanation(excinfo.value.result))
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """The place and the name of the case for pytest."""
        return self.path, None, self.name


class CaseFailed(Exception):
    """The verdict is not as it should be."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.case)
        self.result = result


_SESSION: pytest.StashKey[Session] = pytest.StashKey()


def _session(config: pytest.Config) -> Session:
    """The session that pytest's items share."""

    from conformance.judge.session import open_session

    if _SESSION not in config.stash:
        config.stash[_SESSION] = open_session(config.getoption("--conformance-loader"))
    return config.stash[_SESSION]
