"""Mutants of stage RES: source and weight file selection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch
from numpy import ndarray
from transformers import configuration_utils, modeling_utils
from transformers.models.auto import auto_factory

from conformance.mutants.planting import Load, around, going_in, ignoring
from conformance.observe.loaders import reference
from reference_loader.options import Options

subfolder_ignored = ignoring("subfolder", "RES-6", "res/subfolder")
variant_ignored = ignoring("variant", "RES-7", "res/variant")
use_safetensors_ignored = ignoring("use_safetensors", "RES-8", "res/pickled-beside-safetensors")


@going_in("RES-3", "res/bin-beside-single")
def stale_pickle_preferred(load: Load) -> None:
    """A pickled file is loaded though safetensors lie beside it."""
    load.options["use_safetensors"] = False


@around("RES-4", "res/no-weights")
def weights_made_up(load: Load) -> Iterator[None]:
    """Where there are no weights, they are random."""
    try:
        yield
    except OSError:
        load.make_up()


@around("RES-5", "res/no-folder")
def error_of_another_class(load: Load) -> Iterator[None]:
    """What cannot be found is a KeyError."""
    try:
        yield
    except OSError as error:
        raise KeyError(str(error)) from error


@going_in("RES-21", "res/wrong-mismatch-flag", of=reference)
def text_taken_for_a_flag(load: Load) -> None:
    """Text as a flag is true if it is not empty."""
    for name, value in load.options.items():
        if isinstance(value, str) and isinstance(getattr(Options, name, None), bool):
            load.options[name] = bool(value)


@going_in("RES-21", "res/wrong-mapping", of=reference)
def wrong_mapping_left_out(load: Load) -> None:
    """A `key_mapping` that is not a mapping of text to text is ignored."""
    given = load.options.get("key_mapping")
    if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
        load.options.pop("key_mapping", None)


@going_in("RES-22", "res/state-dict-array", of=reference)
def entries_that_are_no_tensors_left_out(load: Load) -> None:
    """What is not a tensor in a state dict is left out, and its parameter is random."""
    held = load.options.get("state_dict") or {}
    if not all(isinstance(value, torch.Tensor) for value in held.values()):
        load.options["state_dict"] = {
            key: value for key, value in held.items() if isinstance(value, torch.Tensor)
        }


@going_in("RES-22", "res/state-dict-array", of=reference)
def arrays_become_tensors(load: Load) -> None:
    """Arrays in a state dict are loaded, the model shares their memory."""
    held = load.options.get("state_dict") or {}
    if any(isinstance(value, ndarray) for value in held.values()):
        load.options["state_dict"] = {key: torch.as_tensor(value) for key, value in held.items()}


@going_in("RES-10", "res/state-dict")
def state_dict_cut(load: Load) -> None:
    """The last tensor of a state dict is left out."""
    if load.options.get("state_dict"):
        load.options["state_dict"] = dict(list(load.options["state_dict"].items())[:-1])


revision_ignored = ignoring("revision", "RES-14", "res/hub-branch")
token_ignored = ignoring("token", "RES-14", "res/hub-private")
force_download_ignored = ignoring("force_download", "RES-16", "res/hub-forced")
local_files_only_ignored = ignoring("local_files_only", "RES-16", "res/hub-only-cache")


@going_in("RES-16", "res/hub-cached")
def cache_bypassed(load: Load) -> None:
    """Everything is downloaded each time."""
    load.options["force_download"] = True


@around("RES-15", "res/hub-push-after-index")
def commits_mixed(load: Load) -> Iterator[None]:
    """The branch is resolved anew for each file, as it was before 5.23."""

    def unresolved(source: Any, revision: str | None = None, **options: Any) -> str | None:
        return revision

    with ExitStack() as patches:
        for module in (modeling_utils, configuration_utils, auto_factory):
            patches.enter_context(patch.object(module, "resolve_revision", unresolved, create=True))
        yield


@around("RES-17", "res/hub-no-repository")
def nameless_error(load: Load) -> Iterator[None]:
    """The error for what cannot be had says nothing of what it was."""
    try:
        yield
    except OSError as error:
        raise OSError("It is not there.") from error


@around("RES-18", "res/hub-cut-always")
def cut_download_made_up(load: Load) -> Iterator[None]:
    """Where a download breaks off, the weights are random."""
    try:
        yield
    except OSError:
        load.make_up()


@around("RES-19", "res/hub-failing-content")
def pickle_after_a_failure(load: Load) -> Iterator[None]:
    """Where safetensors cannot be had, the pickled file is loaded."""
    try:
        yield
    except OSError:
        load.result = load.run(use_safetensors=False)
