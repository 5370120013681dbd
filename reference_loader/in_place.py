"""The reference loader in the place of transformers' `from_pretrained`, for as long as a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from reference_loader.load import load
from reference_loader.model.transformers_stock import log_report, replaced
from reference_loader.options import Options, Source


@contextmanager
def in_place_of_stock() -> Iterator[None]:
    """Within the block, `PreTrainedModel.from_pretrained` is the reference loader.

    Auto classes and pipelines call it too. A class with a `from_pretrained` of its own keeps it,
    and what that passes on to `super()` comes here. The loading report goes to the logger
    `transformers.modeling_utils`, in the words of the installed release. The method is replaced
    for the whole process: other threads that load meanwhile use the reference loader too. At the
    end of the block it is put back, whatever happened.

    Raises:
        LoadError: from a load within the block, see `from_pretrained`. What the reference loader
            does not support is refused, and never left to transformers.

    Example:
        >>> from transformers import AutoModelForCausalLM
        >>> with in_place_of_stock():
        ...     model = AutoModelForCausalLM.from_pretrained(folder)
        >>> type(model).__name__
        'LlamaForCausalLM'
    """

    def from_pretrained(
        cls: type,
        pretrained_model_name_or_path: Source | None,
        *model_args: Any,
        **options: Any,
    ) -> Any:
        asked = Options.of(options, model_class=cls)
        source = pretrained_model_name_or_path
        model, report = load(source, model_args, asked, called_by_class=True)
        log_report(model, source, report.info())
        return (model, report.info()) if asked.output_loading_info else model

    with replaced(from_pretrained):
        yield
