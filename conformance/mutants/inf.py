"""Mutants of stage INF: loading info."""

from __future__ import annotations

import logging
import warnings
from collections import OrderedDict
from collections.abc import Iterator

from conformance.mutants.planting import Load, around, coming_out, going_in, ignoring

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


@coming_out("INF-6", "inf/all-fields")
def shapes_as_lists(load: Load) -> None:
    """The shapes of a mismatched tensor are told as plain tuples."""
    if load.info:
        found = load.info["mismatched_keys"]
        load.info["mismatched_keys"] = {(n, tuple(s), tuple(m)) for n, s, m in found}


@coming_out("INF-6", "inf/silent")
def dtype_as_text(load: Load) -> None:
    """The config has its dtype as text."""
    load.model.config.dtype = str(load.model.config.dtype).removeprefix("torch.")


@coming_out("INF-6", "inf/silent")
def whole_number_as_float(load: Load) -> None:
    """A field of the config that counts is a float, which is equal and indexes nothing."""
    fields = vars(load.model.config)  # the config itself takes no float there
    fields["max_position_embeddings"] *= 1.0


@coming_out("INF-6", "inf/silent")
def tokens_as_tuple(load: Load) -> None:
    """The architectures of the config are a tuple."""
    load.model.config.architectures = tuple(load.model.config.architectures or ())


@coming_out("INF-6", "inf/exact")
def keys_of_their_own_kind(load: Load) -> None:
    """The keys in the loading info are of a subclass of str."""
    if load.info:
        load.info["missing_keys"] = {Key(key) for key in load.info["missing_keys"]}
        load.info["unexpected_keys"] = {Key(key) for key in load.info["unexpected_keys"]}
        load.result = load.model, OrderedDict(load.info)


class Key(str):
    """Text of another type."""

    __slots__ = ()


@around("INF-7", "inf/warns-of-missing-plain")
def initialised_in_silence(load: Load) -> Iterator[None]:
    """Nothing is logged."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@around("INF-7", "inf/warns-of-mismatched")
def initialised_in_a_whisper(load: Load) -> Iterator[None]:
    """What is logged as a warning is logged as a piece of information."""
    logger = logging.getLogger("transformers")
    logger.addFilter(softer := _Softer())
    for handler in logger.handlers:
        handler.addFilter(softer)
    try:
        yield
    finally:
        logger.removeFilter(softer)
        for handler in logger.handlers:
            handler.removeFilter(softer)


class _Softer(logging.Filter):
    """Lowers every record to INFO."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lower the record."""
        record.levelno, record.levelname = logging.INFO, "INFO"
        return True


@around("INF-8", "inf/silent")
def always_warning(load: Load) -> Iterator[None]:
    """Every load gives a warning of its own."""
    warnings.warn("weights were loaded", UserWarning, stacklevel=2)
    yield


@around("INF-8", "inf/silent-plain")
def always_logging(load: Load) -> Iterator[None]:
    """Every load logs a warning of its own."""
    logging.getLogger("transformers.modeling_utils").warning("weights were loaded")
    yield


@around("INF-9", "res/hub-private")
def token_logged(load: Load) -> Iterator[None]:
    """The options are logged, the token among them."""
    logging.getLogger("transformers").debug("loading with %s", load.options)
    logging.getLogger("transformers").warning("loading with %s", load.options)
    yield


@around("INF-9", "res/hub-gated-token-untold")
def token_in_the_error(load: Load) -> Iterator[None]:
    """An error of the Hub names the token."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{error} (token {load.options.get('token')})") from error


@around("INF-9", "res/hub-gated")
def token_printed(load: Load) -> Iterator[None]:
    """The token is printed."""
    print("token:", load.options.get("token"))
    yield
