"""The list of releases, as the tools print it; and which of them the matrix takes."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from packaging.version import Version

from conformance.releases import published as module
from conformance.releases.published import NotListed, newest_patches, published

PRINTED = """\
transformers (5.1.0)
Available versions: 5.1.0, 5.0.0, 5.0.0rc1, 4.57.6, 4.57.10, 4.9.2, nonsense
  INSTALLED: 5.0.0
"""


def printing(text: str, code: int = 0, error: str = "") -> Any:
    return lambda command, **options: subprocess.CompletedProcess(command, code, text, error)


def versions(*words: str) -> list[Version]:
    return [Version(word) for word in words]


def test_final_releases_come_in_order_of_version() -> None:
    found = published(printing(PRINTED))
    assert found == versions("4.9.2", "4.57.6", "4.57.10", "5.0.0", "5.1.0")


@pytest.mark.parametrize(
    ("run", "told"),
    [
        (printing("", 1, "ERROR: no index\n"), "no index"),
        (printing("", 1), "it says nothing"),
        (printing("something else"), "it says nothing"),
    ],
    ids=["fails", "fails-silently", "other-words"],
)
def test_an_index_that_cannot_be_asked_is_an_error(run: Any, told: str) -> None:
    with pytest.raises(NotListed, match=told):
        published(run)


def test_an_environment_without_pip_asks_by_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "which", lambda name: f"/bin/{name}")
    asked: list[list[str]] = []

    def run(command: list[str], **options: Any) -> Any:
        asked.append(command)
        ok = command[0] == "/bin/uv"
        return subprocess.CompletedProcess(command, 0 if ok else 1, PRINTED, "")

    assert published(run)
    assert asked[-1][:4] == ["/bin/uv", "tool", "run", "pip"]


def test_the_newest_patch_of_every_minor_from_the_oldest_on() -> None:
    releases = versions("4.46.3", "4.47.0", "4.47.1", "4.57.10", "4.57.6", "5.0.0")
    assert newest_patches(releases, Version("4.47")) == versions("4.47.1", "4.57.10", "5.0.0")
