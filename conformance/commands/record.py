"""`conformance record`: write what a load leaves into a small file."""

from __future__ import annotations

import argparse
import shlex

from conformance.commands.arguments.shared import HarnessError, UsageError
from conformance.commands.selection import model_class, refuse_code
from conformance.inspect.load_record import Load, NotLoaded, record
from reference_loader.options import Options
from reference_loader.source.checkpoint import open_folder


def run(options: argparse.Namespace) -> int:
    """Run `conformance record`: load and write the file; the exit code."""
    load = load_of(
        options.checkpoint, options.model_class, options.dtype, options.trust_remote_code
    )
    try:
        size = record(load, options.out)
    except NotLoaded as error:
        raise HarnessError(str(error)) from error
    line = shlex.join(["conformance", "verify", str(options.out), *load.named()])
    print(f"{options.out}: {size / 1000:.1f} kB; `{line}`")
    return 0


def load_of(checkpoint: str, model: str, dtype: str, trusted: bool = False) -> Load:
    """The load that `record` and `verify` make, by their arguments.

    Args:
        checkpoint, dtype: see `Load`.
        model: `MODULE:ATTR`, which is imported: it must come from the command line, or be a class
            of transformers.
        trusted: whether the code of the checkpoint may run.

    Raises:
        UsageError: there is no such class or dtype.
        LoadError: there is no such checkpoint, or it needs its code and is not trusted.
    """
    import torch

    found = model_class(model)
    if dtype not in ("", "auto") and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise UsageError(f"--dtype {dtype}: neither `auto` nor a dtype of torch")
    folder = open_folder(checkpoint, subfolder="", options=Options())
    refuse_code(folder, trusted, found)
    return Load(checkpoint, folder, model, dtype, trusted)
