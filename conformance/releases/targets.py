"""The environments in which loaders are judged: named by a word, made once, kept whole.

`python -m conformance.releases.targets TARGET` makes one and prints its interpreter.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from conformance_fixtures.cache import cache_root

# Where torch comes from the target itself, these come along in the versions of this environment.
COMPANIONS = ("transformers", "accelerate", "safetensors", "huggingface_hub", "numpy", "packaging")

Tell = Callable[[str], None]


class BadTarget(ValueError):
    """What was given names no target."""


class TargetNotMade(RuntimeError):
    """The environment of a target could not be made."""


@dataclass(frozen=True)
class Target:
    """Where a loader is judged.

    Attributes:
        name: as the user wrote it.
        python: the interpreter, if it is there already; None for an environment to be made.
        requirements: what to install into that.
    """

    name: str
    python: Path | None = None
    requirements: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        """Its name as part of a path."""
        return re.sub(r"[^A-Za-z0-9.+-]+", "-", self.name).strip("-")[:60]

    def is_met_by(self, versions: Mapping[str, str | None]) -> bool:
        """Whether these packages are what was asked for, as far as they are told."""
        wanted = {_package(each): Requirement(each).specifier for each in self.requirements}
        held = {name.replace("_", "-"): version for name, version in versions.items()}
        return all(
            wanted[name].contains(held[name] or "", prereleases=True)
            for name in wanted.keys() & held.keys()
        )

    @property
    def brings_torch(self) -> bool:
        """Whether torch is the target's own and not that of this environment."""
        return any(_package(requirement) == "torch" for requirement in self.requirements)


def parse(name: str) -> Target:
    """`current`, `4.57.6`, `transformers==5.0.0,accelerate==1.10.1`, `python:PATH`.

    Raises:
        BadTarget: none of these.
    """
    if name == "current":
        return Target(name, Path(sys.executable))
    if name.startswith("python:"):
        return Target(name, _interpreter(name.removeprefix("python:")))
    with_package = f"transformers=={name}" if _is_version(name) else name
    parts = [part.strip() for part in with_package.split(",")]
    try:
        requirements = tuple(sorted(str(Requirement(part)) for part in parts))
    except InvalidRequirement as cause:
        told = str(cause).splitlines()[0]
        raise BadTarget(
            f"{name!r} is no target: {told}. Give `current`, a release of transformers such as "
            "4.57.6, requirements joined by commas such as transformers==5.0.0,accelerate==1.10.1, "
            "or python:PATH"
        ) from cause
    return Target(name, requirements=requirements)


def _interpreter(text: str) -> Path:
    found = shutil.which(Path(text).expanduser())
    if found is None:
        raise BadTarget(f"python:{text}: there is no such program")
    return Path(found).absolute()  # not resolved: a link in a venv is what makes it that venv's


def _is_version(name: str) -> bool:
    try:
        Version(name)
    except InvalidVersion:
        return False
    return True


def _package(requirement: str) -> str:
    return Requirement(requirement).name.lower().replace("_", "-")


def interpreter(target: Target, tell: Tell = lambda text: None) -> Path:
    """The Python of the target's environment, which is made now if it has not been.

    An environment appears under its final name by a rename, or not at all: one that a killed run
    left half made is never taken for whole, and is cleared away by the next run that needs it.

    Args:
        target: what is to be in it.
        tell: is told what takes long, when it begins.

    Raises:
        TargetNotMade: something could not be installed; the message names it.
    """
    if target.python is not None:
        return target.python
    home = environments() / _key(target)
    if not _python(home).exists():
        with _locked(home):
            if not _python(home).exists():  # else another run made it while this one waited
                tell(f"making the environment of {target.name}")
                _make(target, home)
    return _python(home)


def environments() -> Path:
    """Where environments are kept, beside the fixtures."""
    return cache_root() / "environments"


def _key(target: Target) -> str:
    """What the environment holds, in a word; another Python or shared package makes another."""
    holds: list[Any] = [target.requirements, sys.version, sys.base_prefix]
    holds.append(_companions() if target.brings_torch else [_purelib(), _shared()])
    readable = re.sub(r"[^A-Za-z0-9.+-]", "-", ",".join(target.requirements).replace("==", "-"))
    return f"{readable[:80]}-{hashlib.sha256(json.dumps(holds).encode()).hexdigest()[:12]}"


def _python(home: Path) -> Path:
    return home / "bin" / "python"


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """One run at a time makes an environment; the lock goes with the process that holds it."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / f".{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(target: Target, home: Path) -> None:
    for left in home.parent.glob(f".{home.name}.*.partial"):
        shutil.rmtree(left, ignore_errors=True)
    partial = home.with_name(f".{home.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        _run([sys.executable, "-m", "venv", "--without-pip", str(partial)], target)
        if target.brings_torch:
            _install([*_unnamed_companions(target), *target.requirements], partial, target)
        else:
            _share_ours(partial)
            _install(target.requirements, partial, target)
        partial.rename(home)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _share_ours(home: Path) -> None:
    """What is not installed in the environment is that of the calling one, torch above all."""
    library = next((home / "lib").glob("python*")) / "site-packages"
    library.joinpath("shared.pth").write_text(_purelib() + "\n", "utf-8")


def _purelib() -> str:
    return sysconfig.get_path("purelib")


def _shared() -> list[str]:
    """All that the calling environment has: an installer leaves out what it finds there."""
    return sorted(f"{each.name}=={each.version}" for each in distributions())


def _companions() -> list[str]:
    found = {package: _version(package) for package in COMPANIONS}
    return [f"{package}=={held}" for package, held in found.items() if held is not None]


def _unnamed_companions(target: Target) -> list[str]:
    named = {_package(requirement) for requirement in target.requirements}
    return [each for each in _companions() if _package(each) not in named]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _install(requirements: Sequence[str], home: Path, target: Target) -> None:
    uv = shutil.which("uv")
    if uv is None:
        pip = [sys.executable, "-m", "pip", "--python", str(_python(home)), "install", "--quiet"]
        # Compiling takes longer than the rest, and Python compiles what it imports.
        pip += ["--disable-pip-version-check", "--no-compile"]
        _run([*pip, *requirements], target)
        return
    command = [uv, "pip", "install", "--quiet", "--python", str(_python(home))]
    if not target.brings_torch:
        # uv does not see what is shared, and would fetch a torch of its own for who requires one.
        override = home / "not-torch.txt"
        override.write_text("torch; python_version < '0'\n", "utf-8")
        command += ["--override", str(override)]
    _run([*command, *requirements], target)


def _run(command: Sequence[str], target: Target) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        told = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        reason = (told or done.stderr.splitlines() or ["no message"])[-1].strip()
        wanted = ", ".join(target.requirements)
        raise TargetNotMade(f"the target {target.name} ({wanted}) cannot be installed: {reason}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the interpreter of a target; 2 if its environment cannot be made, 64 for no target."""
    parser = argparse.ArgumentParser(
        "python -m conformance.releases.targets",
        description="Print the interpreter of a target, after making its environment.",
    )
    parser.add_argument("target", metavar="TARGET", help="such as 4.57.6, or `current`")
    given = parser.parse_args(arguments)
    try:
        python = interpreter(parse(given.target), lambda text: print(text, file=sys.stderr))
    except BadTarget as error:
        print(error, file=sys.stderr)
        return 64
    except TargetNotMade as error:
        print(error, file=sys.stderr)
        return 2
    print(python)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
