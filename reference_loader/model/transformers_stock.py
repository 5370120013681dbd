"""What takes the place of transformers' own loading, and logs what that would log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from torch import nn


@contextmanager
def replaced(loader: Callable[..., Any]) -> Iterator[None]:
    """Within the block, `loader` is the class method `PreTrainedModel.from_pretrained`."""
    from transformers import PreTrainedModel

    own = vars(PreTrainedModel)["from_pretrained"]
    PreTrainedModel.from_pretrained = classmethod(loader)
    try:
        yield
    finally:
        PreTrainedModel.from_pretrained = own


def log_report(model: nn.Module, source: Any, info: Mapping[str, Any]) -> None:
    """Log the loading info as the installed release words it, by its logger, if there is any.

    Args:
        model: what was loaded.
        source: where from.
        info: see `LoadReport.info`.
    """
    from transformers import modeling_utils

    logger = modeling_utils.logger
    try:
        from transformers.utils.loading_report import LoadStateDictInfo, log_state_dict_report
    except ImportError:  # before release 5 the words are within the load itself
        _log_lists(logger, model, source, info)
        return
    told = {each.name: info.get(each.name, {}) for each in fields(LoadStateDictInfo)}
    log_state_dict_report(
        model=model,
        pretrained_model_name_or_path=source,
        ignore_mismatched_sizes=True,
        loading_info=LoadStateDictInfo(**told),
        logger=logger,
    )


def _log_lists(logger: Any, model: nn.Module, source: Any, info: Mapping[str, Any]) -> None:
    """The warnings of releases before 5, by the phrases that people look for in them."""
    name, unexpected, missing = type(model).__name__, info["unexpected_keys"], info["missing_keys"]
    differing = [f"{key}: {stored} is not {own}" for key, stored, own in info["mismatched_keys"]]
    if unexpected:
        logger.warning(
            f"Some weights of the model checkpoint at {source} were not used when initializing "
            f"{name}: {sorted(unexpected)}"
        )
    for keys in (sorted(missing), sorted(differing)):
        if keys:
            logger.warning(
                f"Some weights of {name} were not initialized from the model checkpoint at "
                f"{source} and are newly initialized: {keys}"
            )
