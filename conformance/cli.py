"""`conformance`: the command line. Each command is a file of its own in `commands/`, its arguments
are a function of its name in `arguments/`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

from conformance.commands.arguments import diagnosis, suite, upgrade
from conformance.commands.arguments.shared import HarnessError, UsageError
from conformance.results.text import plain
from conformance.world.standard_input import end_input

EXIT_ERROR = 2
EXIT_USAGE = 64
EXIT_INTERRUPTED = 130

# Group to commands, each with its line of help. A command is imported only where it runs: torch and
# transformers take seconds, and help, completion and errors of usage need neither.
COMMANDS = {
    "What an upgrade of transformers changes": {
        "compare": "what changes from one release to the next, for your checkpoints or ours",
        "bisect": "the release in which a case changed",
        "record": "write what a load leaves into a small file",
        "verify": "compare a load with the file that `record` wrote",
    },
    "What is wrong, and how to report it": {
        "check": "judge a loader, or the load of your checkpoints, against the reference",
        "explain": "the plan of a load, or with --check all that is wrong with a checkpoint",
        "repro": "write a case as a stand-alone folder for an upstream issue",
        "render": "write report.html and the other renderings of an earlier run again",
        "spec": "show the clauses of the specification",
    },
    "Work on the suite itself": {
        "selftest": "run every mutant: a loader with one planted fault, caught by its clause",
        "bench": "measure seconds and memory of loading against stock and other loaders",
        "fixture": "write a tiny checkpoint, with faults if you like",
        "releases": "judge every minor release and write docs/releases.md",
    },
}


ARGUMENTS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    name: getattr(file, name)
    for file, group in zip((upgrade, diagnosis, suite), COMMANDS.values(), strict=True)
    for name in group
}

EXIT_CODES = """exit codes:
  0    as expected: nothing changed or diverged but what is known
  1    a divergence or a regression
  2    no verdict: something could not be judged
  3    a known deviation that no longer happens
  64   wrong usage
  130  interrupted"""


class Parser(argparse.ArgumentParser):
    """Argparse with the contract's exit code for usage, and "did you mean"."""

    def error(self, message: str) -> NoReturn:
        """The command line's exit code for usage, 64, with the message."""
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Options of the command line; a word that no argument takes is an error with a hint."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            known = list(self._option_string_actions)
            hints = [did_you_mean(word.partition("=")[0], known) for word in unknown]
            self.error(f"unrecognized arguments: {' '.join(unknown)}{''.join(hints)}")
        return options


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The end of an error's message, with what the word was perhaps meant to be; or ""."""
    near = get_close_matches(word, known, n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: run one command; its exit code.

    Returns:
        The exit code: 0 as expected, 1 a divergence or regression, 2 no verdict, 3 a stale
        deviation, 64 usage, 130 interrupted. No exception of a loader passes through.
    """
    # Before torch is imported: idle threads that spin slow down every other process on the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        _end_on_sigterm()
        end_input()  # no command reads it, and no library that one calls may ask there
    try:
        name = called(words)
        return run(name, parser(name).parse_args(words[1:]))
    except KeyboardInterrupt:
        print("conformance: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def run(name: str, options: argparse.Namespace) -> int:
    """Run the command of that name; its errors become one line and an exit code."""
    command = import_module(f"conformance.commands.{name}")
    try:
        code: int = command.run(options)
    except UsageError as error:
        print(f"conformance: {plain(error)}", file=sys.stderr)
        return EXIT_USAGE
    except Exception as error:
        print(f"conformance: {_told(error)}", file=sys.stderr)
        return EXIT_ERROR
    return code


def _told(error: Exception) -> str:
    """The line that an error of a command becomes; what is no such error goes on.

    An error of usage never gets here: this import takes seconds where nothing was loaded.
    """
    from reference_loader.errors import LoadError, RemoteCodeRefused

    told = plain(error)
    if isinstance(error, RemoteCodeRefused):
        told = told.replace("`trust_remote_code=True`", "--trust-remote-code")
    if isinstance(error, LoadError):
        return f"{error.code}: {told}"
    if isinstance(error, (OSError, HarnessError)):  # such as an --out that cannot be written
        return told
    raise error


def called(words: Sequence[str]) -> str:
    """The command that the command line calls; help, the versions and a wrong word end here."""
    if not words:
        top().error("a COMMAND is missing; --help lists them")
    if words[0].startswith("-"):
        top().parse_args(words[:1])
    if words[0] not in ARGUMENTS:
        hint = did_you_mean(words[0], list(ARGUMENTS)) or "; --help lists the commands"
        top().error(f"there is no command {plain(words[0])!r}{hint}")
    return words[0]


def top() -> Parser:
    """The parser of what comes before a command."""
    parser = Parser(
        "conformance",
        description="Hold any loader and any release against a specification of from_pretrained.",
        usage="conformance [--version] COMMAND ...",
        epilog=f"{_list_of_commands()}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_versions())
    return parser


def parser(name: str) -> Parser:
    """The parser of one command's arguments."""
    summary = next(group[name] for group in COMMANDS.values() if name in group)
    command = Parser(
        f"conformance {name}",
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ARGUMENTS[name](command)
    return command


def _end_on_sigterm() -> None:
    """Let SIGTERM end the process as an exception does, so that nothing temporary is left."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _list_of_commands() -> str:
    """The commands of the command line by group, for its help."""
    width = max(len(name) for group in COMMANDS.values() for name in group)
    parts = []
    for title, group in COMMANDS.items():
        lines = [f"  {name:<{width}}  {summary}" for name, summary in group.items()]
        parts.append("\n".join([f"{title}:", *lines]))
    end = "`conformance COMMAND --help` shows the arguments of one command."
    return "\n\n".join([*parts, end])


def _versions() -> str:
    """The version of the command line, and of packages that decide what a load becomes."""
    names = ("from-pretrained-conformance", "transformers", "torch", "safetensors", "accelerate")
    return "\n".join(f"{name} {_version(name)}" for name in names)


def _version(package: str) -> str:
    """The installed version of a package, for `conformance --version`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
