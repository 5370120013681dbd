"""Mutants of stage FMT: weight file formats."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors import safe_open
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from conformance.mutants.planting import Load, around, coming_out, going_in, ignoring
from conformance.observe.loaders import reference

weights_only_ignored = ignoring("weights_only", "FMT-5", "fmt/pickle-trusted", of=reference)


@around("FMT-1", "fmt/truncated-single")
def damaged_file_made_up(load: Load) -> Iterator[None]:
    """A file that cannot be read counts as one of random weights."""
    try:
        yield
    except Exception:
        load.make_up()


@going_in("FMT-3", "fmt/no-format-single")
def format_metadata_demanded(load: Load) -> None:
    """Safetensors without `format` metadata are refused."""
    for path in Path(load.source).glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            if "format" not in (file.metadata() or {}):
                raise OSError(f"{path} has no format metadata")


@going_in("FMT-4", "fmt/legacy-pickle")
def legacy_pickle_refused(load: Load) -> None:
    """A pickled file that is no zip archive is refused."""
    for path in Path(load.source).glob("*.bin"):
        if not zipfile.is_zipfile(path):
            raise OSError(f"{path} is no zip archive")


@around("FMT-5", "fmt/pickle-runs-code")
def pickles_trusted(load: Load) -> Iterator[None]:
    """A pickle may run code."""
    read = torch.load

    def trusting(*given: Any, **named: Any) -> Any:
        return read(*given, **(named | {"weights_only": False}))

    with patch.object(torch, "load", trusting):
        yield


@around("FMT-5", "fmt/pickle-runs-code")
def pickle_run_then_refused(load: Load) -> Iterator[None]:
    """A pickle that would run code has run it by the time it is refused."""
    try:
        yield
    except Exception:
        for path in Path(load.source).glob("*.bin"):
            torch.load(path, weights_only=False)
        raise


@going_in("FMT-22", "fmt/code-config-refused")
def code_run_unasked(load: Load) -> None:
    """The code of a checkpoint runs, whatever the caller says."""
    load.options["trust_remote_code"] = True


@going_in("FMT-22", "fmt/code-beside-known-type")
def code_preferred(load: Load) -> None:
    """The code of a checkpoint runs although the library has the class."""
    load.options.setdefault("trust_remote_code", True)


@going_in("FMT-22", "fmt/code-generate-refused")
def generation_code_run(load: Load) -> None:
    """The function `generate` that the checkpoint holds is taken, whatever the caller says."""
    if Path(load.source, "custom_generate").is_dir():
        load.options["trust_remote_code"] = True


@around("FMT-22", "fmt/code-model-refused")
def code_imported_then_refused(load: Load) -> Iterator[None]:
    """The code of a checkpoint was imported by the time it is refused."""
    try:
        yield
    except ValueError:
        get_class_from_dynamic_module("modeling_coded.CodedForCausalLM", load.source)
        raise


@going_in("FMT-22", "fmt/code-beside-known-type-refused")
def answer_asked_for(load: Load) -> None:
    """The loader asks on standard input, and without an answer goes on without the code."""
    if any(Path(load.source).glob("*.py")):
        with suppress(EOFError):
            input("Run the code of the checkpoint? ")


@going_in("FMT-22", "fmt/code-kernel", of=reference)
def kernel_of_the_config_passed_over(load: Load) -> None:
    """A kernel that the config names is passed over without a word."""
    load.options.setdefault("attn_implementation", "eager")


@going_in("FMT-23", "fmt/code-trusted-beside-known-type")
def library_class_preferred(load: Load) -> None:
    """The library's class is loaded where the caller trusts the checkpoint's."""
    load.options["trust_remote_code"] = False


@coming_out("OUT-3", "fmt/code-trusted-generate")
def own_generate_dropped(load: Load) -> None:
    """The function `generate` of the checkpoint is not taken."""
    vars(load.model).pop("generate", None)


@coming_out("FMT-11", "fmt/odd-shapes-pickled")
def scalar_as_vector(load: Load) -> None:
    """A parameter without a dimension has one, of size one."""
    for parameter in load.model.parameters():
        if not parameter.shape:
            parameter.data = parameter.data.reshape(1)


@coming_out("FMT-13", "fmt/one-storage-tied")
def memory_of_others_kept(load: Load) -> None:
    """Each norm lies in the memory of a matrix that nobody uses."""
    for parameter in load.model.parameters():
        if parameter.ndim == 1:
            whole = torch.zeros(64, len(parameter), dtype=parameter.dtype)
            whole[0] = parameter
            parameter.data = whole[0]
