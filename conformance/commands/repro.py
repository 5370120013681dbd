"""`conformance repro`: write a case as a stand-alone folder for an upstream issue."""

from __future__ import annotations

import argparse

from conformance.commands.arguments.shared import HarnessError, UsageError
from conformance.commands.selection import one_case
from conformance.judge.session import open_session
from conformance.repro.folder import NotReproducible, repro


def run(options: argparse.Namespace) -> int:
    """Run `conformance repro`: write the folder; the exit code."""
    case = one_case(options.case)
    if options.out.exists():
        raise UsageError(f"{options.out} exists already")
    try:
        result = repro(case, options.out, open_session("stock"))
    except NotReproducible as error:
        raise HarnessError(str(error)) from error
    print(f"{case.id}: {result.status}; run `python {options.out / 'repro.py'}`")
    return 0
