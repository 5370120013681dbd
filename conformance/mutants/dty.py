"""Mutants of stage DTY: dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from conformance.mutants.planting import Load, around, coming_out, going_in, ignoring

dtype_ignored = ignoring("dtype", "DTY-3", "dty/f32-as-float16")
torch_dtype_ignored = ignoring("torch_dtype", "DTY-4", "dty/torch-dtype")


@going_in("DTY-1", "dty/default-f16-2")
def float32_by_default(load: Load) -> None:
    """Without a dtype the model is float32, as it was before 5.0."""
    if load.options.get("dtype") is None and load.options.get("torch_dtype") is None:
        load.options["dtype"] = torch.float32


@going_in("DTY-2", "dty/undeclared-bf16")
def auto_is_float32(load: Load) -> None:
    """ "auto" means float32."""
    if load.options.get("dtype") == "auto":
        load.options["dtype"] = torch.float32


@going_in("DTY-3", "dty/by-name-float16")
def name_of_dtype_not_understood(load: Load) -> None:
    """The name of a dtype is ignored."""
    if load.options.get("dtype") != "auto" and isinstance(load.options.get("dtype"), str):
        del load.options["dtype"]


@around("DTY-5", "dty/nonsense")
def nonsense_is_the_default(load: Load) -> Iterator[None]:
    """A dtype that is none counts as none given."""
    try:
        yield
    except Exception:
        load.result = load.run(dtype=None)


@coming_out("DTY-7", "dty/f32-as-float64")
def rounded_twice(load: Load) -> None:
    """Every weight has passed through bfloat16."""
    for parameter in load.model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16).to(parameter.dtype)


@coming_out("DTY-7", "dty/f32-as-bfloat16")
def rounded_through_float16(load: Load) -> None:
    """A weight that becomes bfloat16 is float16 in between."""
    _cast_stored(load, lambda tensor: tensor.half())


@coming_out("DTY-7", "dty/f32-as-bfloat16")
def cut_instead_of_rounded(load: Load) -> None:
    """A weight that becomes bfloat16 loses its lower half."""
    _cast_stored(load, lambda tensor: (tensor.view(torch.int32) >> 16 << 16).view(torch.float32))


@coming_out("DTY-8", "dty/buffers-f16")
def buffers_in_the_models_dtype(load: Load) -> None:
    """Every floating buffer is in the dtype of the model."""
    for buffer in load.model.buffers():
        if buffer.is_floating_point():
            buffer.data = buffer.data.to(load.model.dtype)


@coming_out("DTY-9", "dty/kept-bfloat16")
def nothing_kept_in_float32(load: Load) -> None:
    """Every weight is in the dtype of the model's embedding."""
    wanted = load.base.embed_tokens.weight.dtype
    for parameter in load.model.parameters():
        parameter.data = parameter.data.to(wanted)


@coming_out("DTY-10", "dty/own-buffers-bf16")
def exact_buffer_rounded(load: Load) -> None:
    """A stored buffer that its class made in float32 is in the dtype of the model."""
    if hasattr(load.model, "exact"):
        load.model.exact = load.model.exact.to(load.model.dtype)


@going_in("DTY-12", "dty/declared-f16")
def tensors_decide_the_dtype(load: Load) -> None:
    """The dtype is that of the first tensor, whatever the config declares."""
    load.options["dtype"] = next(iter(load.stored.values())).dtype


def _cast_stored(load: Load, through: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Each bfloat16 parameter is made of its stored float32 tensor by way of another."""
    parameters = dict(load.model.named_parameters())
    for key, tensor in load.stored.items():
        if tensor.dtype == torch.float32 and parameters[key].dtype == torch.bfloat16:
            parameters[key].data = through(tensor).to(torch.bfloat16)
