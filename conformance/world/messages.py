"""What a load tells: log records, warnings and text on stdout. None of it reaches the terminal."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

LOGGERS = ("transformers", "huggingface_hub", "accelerate", "reference_loader", "py.warnings")


class Messages(logging.Handler):
    """The messages of a load, as they come."""

    def __init__(self, shown: list[warnings.WarningMessage], printed: io.StringIO) -> None:
        super().__init__()
        self._records: list[tuple[str, str, str]] = []
        self._shown = shown
        self._printed = printed

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a log record."""
        self._records.append((record.levelname, record.name, record.getMessage()))

    def clear(self) -> None:
        """Forget what was told so far."""
        self._records.clear()
        self._shown.clear()
        self._printed.seek(0)
        self._printed.truncate()

    def kinds(self) -> list[str]:
        """Level and logger of each record, and the category of each warning."""
        records = [f"{level} {name}" for level, name, _ in self._records]
        return [*records, *(f"warning {each.category.__name__}" for each in self._shown)]

    def places_of(self, secret: str) -> list[str]:
        """Where the secret is told."""
        told = [(f"log of {name}", text) for _, name, text in self._records]
        told += [("warning", str(each.message)) for each in self._shown]
        told += [("stdout", self._printed.getvalue())]
        return list(dict.fromkeys(place for place, text in told if secret in text))


@contextmanager
def quiet() -> Iterator[Messages]:
    """Keep loaders from writing to the terminal."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    handlers = [(logger, logger.handlers, logger.propagate) for logger in loggers]
    progress = _progress_bars(False)
    printed = io.StringIO()
    try:
        with redirect_stdout(printed), warnings.catch_warnings(record=True) as shown:
            messages = Messages(shown, printed)
            for logger in loggers:
                logger.handlers, logger.propagate = [messages], False
            yield messages
    finally:
        _progress_bars(progress)
        for logger, before, propagate in handlers:
            logger.handlers, logger.propagate = before, propagate


def _progress_bars(wanted: bool) -> bool:
    from transformers.utils import logging as noise

    before = noise.is_progress_bar_enabled()
    (noise.enable_progress_bar if wanted else noise.disable_progress_bar)()
    return bool(before)
