"""The releases of transformers that can be installed, as the package index lists them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from shutil import which
from typing import Any

from packaging.version import InvalidVersion, Version

PACKAGE = "transformers"


class NotListed(RuntimeError):
    """The package index cannot be asked."""


def published(run: Callable[..., Any] = subprocess.run) -> list[Version]:
    """The final releases that the package index offers to this Python, oldest first.

    Those that were yanked are not among them.

    Raises:
        NotListed: the index cannot be asked.
    """
    command = [*_pip_command(run), "index", "versions", PACKAGE, "--disable-pip-version-check"]
    done = run(command, capture_output=True, text=True, check=False)
    listed = re.search(r"^Available versions: (.+)$", done.stdout, re.MULTILINE)
    if done.returncode or listed is None:
        told = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise NotListed(f"the releases of {PACKAGE} cannot be listed: {told}")
    return sorted(_final_releases(listed[1].split(",")))


def newest_patches(releases: Iterable[Version], oldest: Version) -> list[Version]:
    """The newest published patch of every minor release from that of `oldest` on."""
    newest: dict[tuple[int, int], Version] = {}
    for version in sorted(releases):
        newest[version.major, version.minor] = version
    return [version for minor, version in newest.items() if minor >= (oldest.major, oldest.minor)]


def _pip_command(run: Callable[..., Any]) -> list[str]:
    """The pip that asks the package index; an environment that uv made has none of its own."""
    pip = [sys.executable, "-m", "pip"]
    if (uv := which("uv")) and run([*pip, "--version"], capture_output=True).returncode:
        return [uv, "tool", "run", "pip"]
    return pip


def _final_releases(words: Iterable[str]) -> Iterator[Version]:
    """The final releases among the words that pip prints."""
    for word in words:
        try:
            version = Version(word.strip())
        except InvalidVersion:
            continue
        if not version.is_prerelease:
            yield version
