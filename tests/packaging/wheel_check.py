"""Install the wheel in a fresh environment outside of the checkout, and run every command there.

`python -m tests.packaging.wheel_check [SOURCE] [--with-dependencies] [--only PATTERN]` prints each
command as it runs; of a command that fails, its output too. Exit code 1 if one did.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.packaging.environments import (
    PACKAGES,
    ROOT,
    build,
    empty_environment,
    install,
    outside,
    share,
    source_copy,
)

SECONDS = 900  # of one command, on a busy machine

# What a program sees of the packages: each must come from the environment that it runs in.
WHERE = (
    "import sys, json, importlib.util as u;"
    f"names = {(*PACKAGES, 'fixtures', 'tests')!r};"
    "found = {n: u.find_spec(n) for n in names};"
    "print(json.dumps({n: s and s.origin for n, s in found.items()}))"
)

COMMANDS = "from conformance.cli import COMMANDS as c; print(*(n for g in c.values() for n in g))"

OWN_TEST = """
from fixtures.own import VALUE

def test_own():
    assert VALUE == 7
"""


@dataclass(frozen=True)
class Step:
    """One command line, and what it must do.

    Attributes:
        words: the words; the first is a program of the environment, such as `conformance`.
        code: the exit code; None for any but 0.
        shows: a pattern that its output holds.
        leaves: files that are there afterwards, relative to the folder it runs in.
        folder: where it runs, relative to the folder of all.
    """

    words: tuple[str, ...]
    code: int | None = 0
    shows: str = ""
    leaves: tuple[str, ...] = ()
    folder: str = "."

    @property
    def line(self) -> str:
        """The command line, as for a shell."""
        return shlex.join(self.words)


def step(
    line: str, code: int | None = 0, shows: str = "", leaves: str = "", in_: str = "."
) -> Step:
    """A step from a command line and, separated by spaces, the files that it leaves."""
    return Step(tuple(shlex.split(line)), code, shows, tuple(leaves.split()), in_)


REPORT = ("report.jsonl", "report.html", "junit.xml", "badge.svg")


def steps() -> list[Step]:
    """Every command on a case or two, in an order in which one uses what another leaves."""
    checked = " ".join(f"out/check/{name}" for name in REPORT)
    plugin = "python -m pytest -q -p no:cacheprovider"
    return [
        step("conformance --version", shows=r"^from-pretrained-conformance \d"),
        step("conformance --help", shows="What an upgrade of transformers changes"),
        step("python -m conformance --version", shows=r"^from-pretrained-conformance \d"),
        step(
            "conformance check --case res/single --case tie/equal --out out/check",
            shows="2 cases: 2 agree",
            leaves=checked,
        ),
        step(
            "conformance check --case res/single --format markdown --out out/md",
            shows="res/single|1 cases",
        ),
        step("conformance render out/check", leaves=checked),
        step("conformance fixture llama-f32 ckpt", leaves="ckpt/config.json"),
        step("conformance fixture llama-f32 broken --fault truncated-shard"),
        step("conformance check ckpt --out out/own", leaves="out/own/report.html"),
        step("conformance explain ckpt", shows="model.embed_tokens.weight|peak"),
        step("conformance explain ckpt --check", shows="ckpt"),
        step("conformance explain broken --check", code=1, shows="model.safetensors"),
        step("conformance record ckpt --out deployed.json", leaves="deployed.json"),
        step("conformance verify deployed.json", shows="same"),
        step(
            "conformance repro tie/head-only-disk --out issue",
            leaves="issue/repro.py issue/README.md",
        ),
        step("python issue/repro.py", code=1, shows="places differ"),
        step(
            "conformance compare current current --case res/single --out out/compare",
            shows="1 unchanged",
            leaves="out/compare/report.html",
        ),
        step("conformance bisect res/single --good current --bad current", code=2),
        step("conformance spec", shows="TIE-1"),
        step("conformance spec TIE-1", shows="TIE-1"),
        step("conformance spec --format markdown --out spec.md", leaves="spec.md"),
        step("conformance selftest --stage CNV", shows=r"\d+ mutants, 0 survive"),
        step(
            "conformance bench --case tiny --rounds 1 --contender reference --contender stock"
            " --out out/bench",
            leaves="out/bench/bench.json out/bench/bench.svg",
        ),
        step("conformance releases --help", shows="RELEASE"),
        step("python -m conformance.releases.targets current", shows="bin/python"),
        step("python -m conformance --version", in_="project"),
        step(f"{plugin} test_own.py", shows="1 passed", in_="project"),
        step(
            f"{plugin} --conformance --conformance-case res/single", shows="2 passed", in_="project"
        ),
        step(
            f"{plugin} test_own.py --conformance-checkpoint ../ckpt", shows="passed", in_="project"
        ),
        step(
            f"{plugin} --pyargs conformance --conformance-case res/single",
            shows="1 passed",
            in_="project",
        ),
        step(
            f"{plugin} --conformance --conformance-case no/such/case",
            code=None,
            shows="no conformance case matches",
            in_="project",
        ),
    ]


def help_steps(commands: Sequence[str]) -> Iterator[Step]:
    """The help of every command."""
    for name in commands:
        yield step(f"conformance {name} --help", shows=rf"usage: conformance {name}\b")


def not_run(commands: Sequence[str], planned: Sequence[Step]) -> list[str]:
    """The commands that no step runs but for their help."""
    run = {word for each in planned if each.words[0] == "conformance" for word in each.words[1:2]}
    return sorted(set(commands) - run)


def complaint(planned: Step, home: Path, programs: Path) -> str:
    """Run a step; why it failed, with all that it printed, or nothing."""
    program, *words = planned.words
    folder = home / planned.folder
    done = subprocess.run(
        [programs / program, *words],
        cwd=folder,
        env=outside(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    reasons = []
    if done.returncode != planned.code and (planned.code is not None or done.returncode == 0):
        expected = "an error" if planned.code is None else planned.code
        reasons.append(f"exit code {done.returncode}, expected {expected}")
    if not re.search(planned.shows, done.stdout, re.MULTILINE):
        reasons.append(f"its output lacks {planned.shows!r}")
    reasons += [f"{name} is not there" for name in planned.leaves if not (folder / name).is_file()]
    return "\n".join([done.stdout, *reasons]) if reasons else ""


def astray(origins: Mapping[str, str | None], environment: Path) -> list[str]:
    """What comes from elsewhere than the environment, and names that should not be there."""
    site = str(environment.resolve())
    found = [
        f"{name} comes from {origins[name]}, not from {site}"
        for name in PACKAGES
        if not str(Path(origins[name] or "/").resolve()).startswith(f"{site}/")
    ]
    return found + [f"the wheel claims {name}" for name in ("fixtures", "tests") if origins[name]]


def prepared(home: Path, source: Path, with_dependencies: bool) -> Path:
    """Build, install, and write a project with a package called `fixtures`; the interpreter."""
    build(source_copy(home / "source", source), home / "dist")
    (wheel,) = (home / "dist").glob("*.whl")
    python = empty_environment(home / "venv")
    if with_dependencies:
        install(python, [f"{wheel}[test]"], "--constraint", str(ROOT / "constraints.txt"))
    else:
        install(python, [str(wheel)], "--no-deps")
        share(python)
    own = home / "project" / "fixtures"
    own.mkdir(parents=True)
    (own / "__init__.py").touch()
    (own / "own.py").write_text("VALUE = 7\n", "utf-8")
    (own.parent / "test_own.py").write_text(OWN_TEST, "utf-8")
    return python


def asked(python: Path, code: str, home: Path) -> str:
    """What a program prints in the environment, outside of the checkout."""
    done = subprocess.run(
        [python, "-c", code],
        cwd=home,
        env=outside(home),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def wheel_check(source: Path, with_dependencies: bool, only: str = "") -> int:
    """Run all steps, or those whose command line matches `only`; 1 if one failed."""
    started, failed = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="wheel-check-") as folder:
        home = Path(folder)
        python = prepared(home, source, with_dependencies)
        print(f"installed, {time.monotonic() - started:.0f} s", flush=True)
        failed += astray(json.loads(asked(python, WHERE, home)), python.parents[1])
        commands = asked(python, COMMANDS, home).split()
        failed += [f"no step runs {name}" for name in not_run(commands, steps())]
        chosen = [e for e in (*steps(), *help_steps(commands)) if re.search(only, e.line)]
        for planned in chosen:
            print(f"$ {planned.line}", end="", flush=True)
            before = time.monotonic()
            told = complaint(planned, home, python.parent)
            print(f"  # {time.monotonic() - before:.0f} s", flush=True)
            if told:
                failed.append(f"$ {planned.line}\n{told}")
    print(*(f"\nFAILED {each}" for each in failed), sep="\n")
    print(f"{len(chosen)} commands, {len(failed)} failures, {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the wheel of a source tree."""
    parser = argparse.ArgumentParser("python -m tests.packaging.wheel_check", description=__doc__)
    parser.add_argument("source", nargs="?", type=Path, default=ROOT, metavar="SOURCE")
    parser.add_argument(
        "--with-dependencies",
        action="store_true",
        help="install the dependencies too; else the environment shares what is installed here",
    )
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help="run only the commands that match"
    )
    given = parser.parse_args(arguments)
    return wheel_check(given.source, given.with_dependencies, given.only)


if __name__ == "__main__":
    sys.exit(main())
