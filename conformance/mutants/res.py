"""RES: which file is loaded."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.mutants.planting import Load, around, going_in, ignoring

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


@going_in("RES-10", "res/state-dict")
def state_dict_cut(load: Load) -> None:
    """The last tensor of a state dict is left out."""
    if load.options.get("state_dict"):
        load.options["state_dict"] = dict(list(load.options["state_dict"].items())[:-1])
