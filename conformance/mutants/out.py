"""Mutants of stage OUT: outputs."""

from __future__ import annotations

from conformance.mutants.planting import Load, coming_out, going_in


@going_in("OUT-1", "res/single")
def another_attention(load: Load) -> None:
    """The attention is the eager one, unless one is asked for."""
    load.options.setdefault("attn_implementation", "eager")


@coming_out("OUT-2", "out/f32-3")
def another_epsilon(load: Load) -> None:
    """The final norm has an epsilon of a hundredth."""
    load.base.norm.variance_epsilon = 0.01


@coming_out("OUT-3", "out/f32-3")
def tokens_penalised(load: Load) -> None:
    """Generation avoids tokens that were there before."""
    if getattr(load.model, "generation_config", None) is not None:
        load.model.generation_config.repetition_penalty = 5.0


@coming_out("OUT-4", "out/f32-3")
def left_in_train_mode(load: Load) -> None:
    """The model is in training mode."""
    load.model.train()


@coming_out("OUT-4", "out/f32-3")
def one_module_in_train_mode(load: Load) -> None:
    """The attention of the last layer is in training mode."""
    load.base.layers[-1].self_attn.training = True
