"""Mutants of stage MEM: memory."""

from __future__ import annotations

from conformance.mutants.planting import Load, coming_out


@coming_out("MEM-1", "mem/views")
def weights_copied(load: Load) -> None:
    """Every parameter is a copy of what lies in the file."""
    for parameter in load.model.parameters():
        parameter.data = parameter.data.clone()


@coming_out("MEM-2", "mem/let-go")
def file_kept_after_a_cast(load: Load) -> None:
    """The tensors of the file are held beside the parameters that were cast from them."""
    load.model.held = list(load.stored.values())
