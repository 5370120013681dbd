"""The releases of transformers that can be installed, as the package index lists them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable

from packaging.version import InvalidVersion, Version


class NotListed(RuntimeError):
    """The package index cannot be asked."""


def published(package: str = "transformers") -> list[Version]:
    """Every final release, oldest first; what was withdrawn is not among them.

    Raises:
        NotListed: pip cannot list them.
    """
    command = [sys.executable, "-m", "pip", "index", "versions", package]
    done = subprocess.run(
        [*command, "--disable-pip-version-check"], capture_output=True, text=True, check=False
    )
    listed = re.search(r"^Available versions: (.+)$", done.stdout, re.MULTILINE)
    if done.returncode != 0 or listed is None:
        told = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise NotListed(f"the releases of {package} cannot be listed: {told}")
    return sorted(_finals(listed.group(1).split(",")))


def _finals(words: Iterable[str]) -> Iterable[Version]:
    for word in words:
        try:
            version = Version(word.strip())
        except InvalidVersion:
            continue
        if not version.is_prerelease:
            yield version


def newest_patches(releases: Iterable[Version], oldest: Version) -> list[Version]:
    """The newest patch of every minor from `oldest` on."""
    newest: dict[tuple[int, int], Version] = {}
    for version in sorted(releases):
        newest[version.major, version.minor] = version
    return [version for minor, version in newest.items() if minor >= (oldest.major, oldest.minor)]
