"""Mutants of stage OFF: disk offload."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from accelerate.hooks import remove_hook_from_module

from conformance.mutants.planting import Load, around, coming_out, going_in, ignoring

offload_buffers_ignored = ignoring("offload_buffers", "OFF-8", "off/buffer-stored-too")


@coming_out("OFF-1", "off/one-layer")
def hooks_of_the_disk_lost(load: Load) -> None:
    """Nothing reads the weights from disk when they are needed."""
    remove_hook_from_module(load.model, recurse=True)


@going_in("OFF-1", "off/head")
def disk_is_memory(load: Load) -> None:
    """What shall be on disk is in memory."""
    device_map = load.options.get("device_map")
    if isinstance(device_map, dict):
        load.options["device_map"] = dict.fromkeys(device_map, "cpu")


@coming_out("OFF-3", "off/pickled")
def written_weight_damaged(load: Load) -> None:
    """The last number in each file of the offload folder is another."""
    for path in _offload_folder(load).glob("*.*"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1  # of a little-endian float: a bit of the exponent
        path.write_bytes(content)


@coming_out("OFF-6", "off/all")
def offload_folder_littered(load: Load) -> None:
    """A file that is no weight of the model is left in the offload folder."""
    if load.options.get("offload_folder"):
        (_offload_folder(load) / "left.dat").touch()


@around("OFF-7", "off/no-folder-pickled")
def folder_made_up(load: Load) -> Iterator[None]:
    """Where no offload folder is given, weights are written to one that is gone afterwards."""
    with TemporaryDirectory(prefix="conformance-offload-") as folder:
        load.options.setdefault("offload_folder", folder)
        yield


def _offload_folder(load: Load) -> Path:
    return Path(load.options.get("offload_folder") or "/nonexistent")
