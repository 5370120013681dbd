"""Copies of the source tree, what is built from them, and environments that share torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("conformance", "conformance_fixtures", "reference_loader")
PROJECT = "from_pretrained_conformance"

# Not part of the source: reports, what was built, caches. Nor is what begins with a dot.
MADE = ("runs", "build", "dist", "__pycache__", "*.egg-info")


def source_copy(target: Path, root: Path = ROOT) -> Path:
    """The source tree without anything that was made from it; links stay links."""
    shutil.copytree(root, target, symlinks=True, ignore=shutil.ignore_patterns(".*", *MADE))
    return target


def build(source: Path, out: Path, *formats: str) -> None:
    """Build into `out`: the sdist and from it the wheel, or only one of them from the source.

    With the setuptools of this environment: nothing is fetched.

    Raises:
        RuntimeError: the build failed; the message is what it printed.
    """
    command = [sys.executable, "-m", "build", "--no-isolation", *formats, "--outdir", str(out)]
    done = subprocess.run(
        [*command, str(source)], capture_output=True, text=True, cwd=out.parent, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)


def files_of_wheel(folder: Path) -> set[str]:
    """The names of all files in the only wheel of the folder."""
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        return set(opened.namelist())


def members_of_sdist(folder: Path) -> dict[str, tarfile.TarInfo]:
    """Every member of the only sdist of the folder, by its name without the first folder."""
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as opened:
        return {name.partition("/")[2]: opened.getmember(name) for name in opened.getnames()}


def files_of_source(root: Path) -> set[str]:
    """Every file of the packages, data too, by its path from the root."""
    return {
        path.relative_to(root).as_posix()
        for package in PACKAGES
        # A folder that is reached by a link has its files listed under the name of the link.
        for path in (root / package).glob("**/*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def empty_environment(folder: Path) -> Path:
    """A new environment that holds nothing, pip neither; its interpreter."""
    venv.create(folder, symlinks=True, with_pip=False)
    return folder / "bin" / "python"


def share(python: Path) -> None:
    """Let an environment see all that is installed in this one, except this project.

    By a link for each entry, not by the path of the folder: an editable installation of the
    project must not be seen, its entry points neither.
    """
    site = next((python.parents[1] / "lib").glob("python*")) / "site-packages"
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if PROJECT in entry.name or "__editable__" in entry.name or (site / entry.name).exists():
            continue
        (site / entry.name).symlink_to(entry)


def install(python: Path, requirements: Sequence[str], *options: str) -> None:
    """Install into the environment of that interpreter, with the pip of this one."""
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    pip += ["--disable-pip-version-check", "--no-compile"]
    subprocess.run([*pip, *options, *requirements], check=True)


def outside(home: Path) -> Mapping[str, str]:
    """The variables of a process that knows nothing of the checkout; its caches lie in `home`."""
    kept = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR", "PYTHONDONTWRITEBYTECODE")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "XDG_CACHE_HOME": str(home / "cache"),
        "HF_HOME": str(home / "hf"),
        "HF_HUB_OFFLINE": "1",
        "OMP_WAIT_POLICY": "passive",
        "COLUMNS": "120",
    }
