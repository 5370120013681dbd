"""Mutants of stage INF: loading info."""

from __future__ import annotations

from conformance.mutants.planting import Load, coming_out, going_in, ignoring

output_loading_info_ignored = ignoring("output_loading_info", "INF-1", "inf/exact")


@coming_out("INF-1", "inf/exact")
def lists_for_sets(load: Load) -> None:
    """The loading info holds lists, as it did before 5.0."""
    load.info.update({field: list(found) for field, found in load.info.items()})


@coming_out("INF-2", "mis/head-f32")
def swallowed_missing_key(load: Load) -> None:
    """The report of missing keys is empty."""
    if load.info:
        load.info["missing_keys"] = set()


@coming_out("INF-2", "inf/exact")
def loaded_key_told_missing(load: Load) -> None:
    """The final norm is reported missing, and is not."""
    if load.info:
        load.info["missing_keys"].add("model.norm.weight")


@coming_out("INF-3", "inf/all-fields")
def swallowed_left_over_key(load: Load) -> None:
    """The report of left-over keys is empty."""
    if load.info:
        load.info["unexpected_keys"] = set()


@going_in("INF-4", "inf/model-alone")
def loading_info_unasked(load: Load) -> None:
    """Loading info is returned though nobody asked for it."""
    load.options["output_loading_info"] = True


@coming_out("INF-5", "inf/all-fields")
def wrong_shapes_told(load: Load) -> None:
    """Of a tensor of the wrong shape the two shapes are told in the wrong order."""
    if load.info:
        found = load.info["mismatched_keys"]
        load.info["mismatched_keys"] = {(name, wanted, stored) for name, stored, wanted in found}
