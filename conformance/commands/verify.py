"""`conformance verify`: compare a load with the file that `record` wrote."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from conformance.commands.arguments.shared import HarnessError, UsageError
from conformance.commands.record import load_of
from conformance.inspect.load_record import BadRecord, of_transformers, options_of, read, verify


def run(options: argparse.Namespace) -> int:
    """Run `conformance verify`: load and compare with the record; the exit code."""
    try:
        recorded = read(options.file)
        held = options_of(recorded)
        checkpoint = options.checkpoint or held["checkpoint"]
        model = options.model_class or _recorded_model(options.file, held["model"])
        load = load_of(checkpoint, model, held["dtype"], options.trust_remote_code)
        return verify(options.file, load, recorded)
    except BadRecord as error:
        raise HarnessError(str(error)) from error


def _recorded_model(file: Path, model: str) -> str:
    """The model class of the record, if naming it imports nothing but transformers.

    Raises:
        UsageError: it is of another module, which only the command line may name.
    """
    if model and not of_transformers(model):
        raise UsageError(
            f"{file} names the model class {model}; a record does not decide what is imported. "
            f"If you trust that module, add {shlex.join(['--model-class', model])}"
        )
    return model
