"""`conformance`: the command line. Each command is a file of its own in `commands/`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

from conformance.world.standard_input import end_input

EXIT_ERROR = 2
EXIT_USAGE = 64
EXIT_INTERRUPTED = 130

# Group to commands, each with its line of help. A command is imported only where it is called:
# torch and transformers take seconds, and a list of commands needs neither.
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


class Parser(argparse.ArgumentParser):
    """Argparse with the contract's exit code for usage."""

    def error(self, message: str) -> NoReturn:
        """The command line's exit code for usage, 64, with the message."""
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


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
        options = parser(words).parse_args(words)
        return run(options)
    except KeyboardInterrupt:
        print("conformance: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def run(options: argparse.Namespace) -> int:
    """Run the command that the command line parsed; its errors become one line and an exit code."""
    from conformance.commands.arguments import HarnessError, UsageError
    from conformance.results.text import plain
    from reference_loader.errors import LoadError, RemoteCodeRefused

    try:
        code: int = options.run(options)
    except RemoteCodeRefused as error:
        told = plain(error).replace("`trust_remote_code=True`", "--trust-remote-code")
        print(f"conformance: {error.code}: {told}", file=sys.stderr)
        return EXIT_ERROR
    except LoadError as error:
        print(f"conformance: {error.code}: {plain(error)}", file=sys.stderr)
        return EXIT_ERROR
    except UsageError as error:
        print(f"conformance: {plain(error)}", file=sys.stderr)
        return EXIT_USAGE
    except (OSError, HarnessError) as error:  # such as an --out that cannot be written
        print(f"conformance: {plain(error)}", file=sys.stderr)
        return EXIT_ERROR
    return code


def parser(words: Sequence[str]) -> Parser:
    """The parser of the command line; only the command that `words` call has its arguments."""
    summaries = {name: line for group in COMMANDS.values() for name, line in group.items()}
    top = Parser(
        "conformance",
        description="Hold any loader and any release against a specification of from_pretrained.",
        usage="conformance [--version] COMMAND ...",
        epilog=_list_of_commands(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=_versions())
    commands = top.add_subparsers(
        required=True, metavar="COMMAND", parser_class=Parser, help=argparse.SUPPRESS
    )
    called = next((word for word in words if not word.startswith("-")), "")
    for name, summary in summaries.items():
        command = commands.add_parser(
            name, prog=f"conformance {name}", description=f"{summary[0].upper()}{summary[1:]}."
        )
        if name == called:
            module: Any = import_module(f"conformance.commands.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return top


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
