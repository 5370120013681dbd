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

# What an installer is asked for, and nothing else: a word that was mistyped must not install what
# somebody has put into the index under that name.
INSTALLABLE = frozenset(
    {*(name.replace("_", "-") for name in COMPANIONS), "torch", "tokenizers", "peft", "gguf"}
    | {"bitsandbytes", "compressed-tensors", "torchao", "kernels", "optimum", "gptqmodel"}
)
_EXACT = re.compile(r"===?[A-Za-z0-9.+!-]+")

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
        """The name of a target as part of a path."""
        return re.sub(r"[^A-Za-z0-9.+-]+", "-", self.name).strip("-")[:60]

    def is_met_by(self, versions: Mapping[str, str | None]) -> bool:
        """Whether these packages are what the target asks for, as far as they are told."""
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
    """The target `current`, `4.57.6`, `transformers==5.0.0,accelerate==1.10.1` or `python:PATH`.

    Raises:
        BadTarget: none of these.
    """
    if name == "current":
        return Target(name, Path(sys.executable))
    if name.startswith("python:"):
        return Target(name, _named_interpreter(name.removeprefix("python:")))
    with_package = f"transformers=={name}" if _is_version(name) else name
    parts = [part.strip() for part in with_package.split(",")]
    try:
        wanted = [Requirement(part) for part in parts]
    except InvalidRequirement as cause:
        raise BadTarget(_no_target(name, str(cause).splitlines()[0])) from cause
    for part in wanted:
        if part.name.lower().replace("_", "-") not in INSTALLABLE:
            raise BadTarget(_no_target(name, f"the package {part.name} is not installed for you"))
        if part.url or part.marker or not _EXACT.fullmatch(str(part.specifier)):
            raise BadTarget(_no_target(name, f"{part.name} needs one release, as {part.name}==1.2"))
    return Target(name, requirements=tuple(sorted(map(str, wanted))))


def _no_target(name: str, reason: str) -> str:
    """The message on a word that names no target, with what does."""
    return (
        f"{name!r} is no target: {reason}. Give the folder of a checkpoint, `current`, a release "
        "of transformers such as 4.57.6, requirements joined by commas such as "
        "transformers==5.0.0,accelerate==1.10.1, or python:PATH"
    )


def _named_interpreter(text: str) -> Path:
    """The interpreter that the target `python:PATH` names."""
    found = shutil.which(Path(text).expanduser())
    if found is None:
        raise BadTarget(f"python:{text}: there is no such program")
    return Path(found).absolute()  # not resolved: a link in a venv is what makes it that venv's


def _is_version(name: str) -> bool:
    """Whether the target's name is that of a release."""
    try:
        Version(name)
    except InvalidVersion:
        return False
    return True


def _package(requirement: str) -> str:
    """The package that a requirement of a target is of, by its usual name."""
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
    home = environments() / _environment_key(target)
    if not _python_of(home).exists():
        with _environment_locked(home):
            if not _python_of(home).exists():  # else another run made it while this one waited
                tell(f"making the environment of {target.name}")
                _make_environment(target, home)
    return _python_of(home)


def environments() -> Path:
    """The folder of the targets' environments, beside the fixtures."""
    return cache_root() / "environments"


def _environment_key(target: Target) -> str:
    """What a target's environment holds, in a word; another Python or shared package, another."""
    holds: list[Any] = [target.requirements, sys.version, sys.base_prefix]
    holds.append(_companions() if target.brings_torch else [_our_packages_folder(), _shared()])
    readable = re.sub(r"[^A-Za-z0-9.+-]", "-", ",".join(target.requirements).replace("==", "-"))
    return f"{readable[:80]}-{hashlib.sha256(json.dumps(holds).encode()).hexdigest()[:12]}"


def _python_of(home: Path) -> Path:
    """The Python of a target's environment."""
    return home / "bin" / "python"


@contextmanager
def _environment_locked(home: Path) -> Iterator[None]:
    """Let one run at a time make an environment; the lock goes with the process that holds it."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / f".{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make_environment(target: Target, home: Path) -> None:
    """Make a target's environment: all of it, or nothing."""
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
    """Share with a target's environment what it has not installed: ours, torch above all."""
    library = next((home / "lib").glob("python*")) / "site-packages"
    library.joinpath("shared.pth").write_text(_our_packages_folder() + "\n", "utf-8")


def _our_packages_folder() -> str:
    """The folder of packages that targets' environments share."""
    return sysconfig.get_path("purelib")


def _shared() -> list[str]:
    """All packages shared with a target: an installer leaves out what it finds there."""
    return sorted(f"{each.name}=={each.version}" for each in distributions())


def _companions() -> list[str]:
    """What a target with a torch of its own gets in our versions, as requirements."""
    found = {package: _version(package) for package in COMPANIONS}
    return [f"{package}=={held}" for package, held in found.items() if held is not None]


def _unnamed_companions(target: Target) -> list[str]:
    """The companions whose version the target's name does not say."""
    named = {_package(requirement) for requirement in target.requirements}
    return [each for each in _companions() if _package(each) not in named]


def _version(package: str) -> str | None:
    """The version of a package in this environment, for targets that share it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _install(requirements: Sequence[str], home: Path, target: Target) -> None:
    """Install packages into a target's environment, by uv or pip."""
    uv = shutil.which("uv")
    if uv is None:
        pip = [sys.executable, "-m", "pip", "--python", str(_python_of(home)), "install", "--quiet"]
        # Compiling takes longer than the rest, and Python compiles what it imports.
        pip += ["--disable-pip-version-check", "--no-compile"]
        _run([*pip, *requirements], target)
        return
    command = [uv, "pip", "install", "--quiet", "--python", str(_python_of(home))]
    if not target.brings_torch:
        # uv does not see what is shared, and would fetch a torch of its own for who requires one.
        override = home / "not-torch.txt"
        override.write_text("torch; python_version < '0'\n", "utf-8")
        command += ["--override", str(override)]
    _run([*command, *requirements], target)


def _run(command: Sequence[str], target: Target) -> None:
    """Run a command that makes a target's environment; raise TargetNotMade if it fails."""
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
