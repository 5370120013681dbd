"""The errors of a load: one family of exceptions, a class for each defect.

Every error has a code, a message that names the file and the key or option, the cause (`__cause__`)
if another exception led to it, and a hint. Each class is also the builtin exception that
transformers documents for the same defect, so code that catches `OSError` or `ValueError` around
transformers catches these too.
"""

from __future__ import annotations

import re

# What is invisible although it counts as printable: fillers, joiners, variation selectors.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)


def shown(name: str) -> str:
    """A name with unprintable and invisible characters escaped, to be printed anywhere."""
    if name.isprintable() and not _INVISIBLE.search(name):
        return name
    return "".join(
        each if each.isprintable() and not _INVISIBLE.match(each) else _escaped(each)
        for each in name
    )


def _escaped(character: str) -> str:
    """An unprintable or invisible character as an escape, for a message of an error."""
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


class LoadError(Exception):
    """Base of all loading errors.

    Attributes:
        code: the class name in kebab-case, stable for programs that read it.
        message: what is wrong; names the file and the key or option.
        hint: what to do about it; may be empty.

    Example:
        >>> try:
        ...     raise ShardNotFound("Shard b.safetensors does not exist.", "Download it.")
        ... except LoadError as error:
        ...     print(error.code, "-", error)
        shard-not-found - Shard b.safetensors does not exist. Hint: Download it.
    """

    code = "load-error"

    def __init_subclass__(cls) -> None:
        cls.code = re.sub("(?<=[a-z])(?=[A-Z])", "-", cls.__name__).lower()

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        # Names in a checkpoint are untrusted: none of them may control the terminal.
        text = f"{self.message} Hint: {self.hint}" if self.hint else self.message
        return "\n".join(map(shown, text.split("\n")))


class SourceNotFound(LoadError, OSError):
    """The source is neither an existing folder nor a repository (RES-5)."""


class RevisionNotFound(LoadError, OSError):
    """The repository has no such branch, tag or commit (RES-17)."""


class AccessRefused(LoadError, OSError):
    """The repository is gated or private, and the token gives no access to it (RES-17)."""


class NotInCache(LoadError, OSError):
    """A required file is not in the cache, and requests to the Hub are disabled (RES-17)."""


class DownloadFailed(LoadError, OSError):
    """The Hub is unreachable, reports an error, or drops the connection (RES-18, RES-19)."""


class WeightsNotFound(LoadError, OSError):
    """The folder contains none of the expected weight files (RES-4)."""


class ConfigNotFound(LoadError, OSError):
    """The folder contains no valid `config.json` (CFG-6, CFG-7)."""


class BadConfig(LoadError, ValueError):
    """The model class does not accept the config, a JSON object (CFG-11, CFG-20), or it does not
    fit the weights (MIS-7)."""


class ShardNotFound(LoadError, OSError):
    """The index names a shard that does not exist (IDX-6)."""


class BadIndex(LoadError, ValueError):
    """The index file is malformed (IDX-4, IDX-5, IDX-11 to IDX-13)."""


class UnsafePath(LoadError, ValueError):
    """A file name in the checkpoint points outside its folder (IDX-9, RES-13)."""


class BadTensorFile(LoadError, OSError):
    """A weight file is damaged: its header or its length is wrong (FMT-1, FMT-2, FMT-6)."""


class Unreadable(LoadError, OSError):
    """The operating system denies reading a file of the checkpoint (FMT-18)."""


class DiskFull(LoadError, OSError):
    """The disk has no space for the weights that must be written to it (OFF-9)."""


class UnsafePickle(LoadError, ValueError):
    """A pickled file would run code when it is read (FMT-5)."""


class RemoteCodeRefused(LoadError, ValueError):
    """The checkpoint needs code that it brings or names, which `trust_remote_code=True` allows
    to run (FMT-22)."""


class BadOptions(LoadError, ValueError):
    """An option is invalid, or does not go with the other options (RES-11, CFG-18, PLC-2)."""


class UnknownArgument(LoadError, TypeError):
    """A keyword argument is no option, no config field and no argument of the model (CFG-16)."""


class MetaDevice(LoadError, RuntimeError):
    """The default device is meta, which has no memory to load into (INI-4)."""


class BadDtype(LoadError, ValueError):
    """The requested dtype or a stored dtype is not supported (DTY-5, DTY-6, FMT-10)."""


class ShapeMismatch(LoadError, RuntimeError):
    """A stored tensor and its parameter have different shapes (MIS-4)."""


class NothingMatches(LoadError, ValueError):
    """No stored tensor matches the model (MAP-7), or the file stores no tensor (FMT-16)."""


class NotStrict(LoadError, ValueError):
    """With `strict=True`, checkpoint and model do not have exactly the same tensors (INF-6)."""


class UnknownModelClass(LoadError, ValueError):
    """The arguments and the config do not determine a model class (CFG-5)."""


class BadConversion(LoadError, RuntimeError):
    """Stored tensors that together make one of the model do not fit together (CNV-2)."""


class UnsupportedConversion(LoadError, ValueError):
    """An operation of the library that this loader cannot plan (CNV-1)."""


class UnsupportedOption(LoadError, ValueError):
    """An option or a config asks for something that this loader does not support."""
