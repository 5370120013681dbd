"""What goes wrong while loading, as one family of exceptions.

Every error carries a code, a message that names the file and the key, the cause if there was one,
and a hint. Each class is also the builtin exception that `transformers` documents for the same
defect, so a caller who catches `OSError` today catches it tomorrow.
"""

from __future__ import annotations

import re


def shown(name: str) -> str:
    """A name in a form that can be printed anywhere: what is no printable character is escaped."""
    return name if name.isprintable() else repr(name)[1:-1]


class LoadError(Exception):
    """Base of all loading errors.

    Attributes:
        code: the name of the class, the defect, in kebab-case.
        message: what is wrong, naming the file and the key.
        hint: what the reader can do about it; may be empty.
    """

    code = "load-error"

    def __init_subclass__(cls) -> None:
        cls.code = re.sub("(?<=[a-z])(?=[A-Z])", "-", cls.__name__).lower()

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        # Names in a checkpoint are a stranger's: none of them moves a terminal's cursor.
        text = f"{self.message} Hint: {self.hint}" if self.hint else self.message
        return "\n".join(map(shown, text.split("\n")))


class SourceNotFound(LoadError, OSError):
    """The source is no folder that exists (RES-5), and no repository."""


class RevisionNotFound(LoadError, OSError):
    """The repository has no such branch, tag or commit."""


class AccessRefused(LoadError, OSError):
    """The repository is gated, or the token is not one that it takes."""


class NotInCache(LoadError, OSError):
    """Offline, and a file that is needed has not been downloaded before."""


class DownloadFailed(LoadError, OSError):
    """The Hub cannot be reached, answers with a failure, or breaks the connection."""


class WeightsNotFound(LoadError, OSError):
    """The folder holds none of the weight files looked for (RES-4)."""


class ConfigNotFound(LoadError, OSError):
    """The folder holds no usable `config.json` (CFG-6, CFG-7)."""


class BadConfig(LoadError, ValueError):
    """The config can be read and makes no model."""


class ShardNotFound(LoadError, OSError):
    """The index names a shard that is not there (IDX-6)."""


class BadIndex(LoadError, ValueError):
    """The index file is not what an index must be (IDX-4, IDX-5)."""


class UnsafePath(LoadError, ValueError):
    """A name inside the checkpoint leads out of its folder (IDX-9)."""


class BadTensorFile(LoadError, OSError):
    """A weight file is damaged: its header or its length is wrong (FMT-1, FMT-2, FMT-6)."""


class Unreadable(LoadError, OSError):
    """The system does not let a file of the checkpoint be read (FMT-18)."""


class DiskFull(LoadError, OSError):
    """What must be written to disk finds no room there (OFF-9)."""


class UnsafePickle(LoadError, ValueError):
    """A pickled file would run code when it is read (FMT-5)."""


class BadOptions(LoadError, ValueError):
    """Two options contradict each other, or one that another needs is absent (RES-11)."""


class UnknownArgument(LoadError, TypeError):
    """A keyword argument that is no option, no field of the config, and nothing to the model."""


class MetaDevice(LoadError, RuntimeError):
    """Loading is asked for where there is no memory."""


class BadDtype(LoadError, ValueError):
    """A model cannot be built in the dtype asked for, or filled from the stored one (FMT-10)."""


class ShapeMismatch(LoadError, RuntimeError):
    """A stored tensor has not the shape of its parameter (MIS-4)."""


class NothingMatches(LoadError, ValueError):
    """Not one stored tensor belongs to the model (MAP-7), or there is none (FMT-16)."""


class NotStrict(LoadError, ValueError):
    """`strict=True` and the checkpoint is not exactly the model (the option `strict`)."""


class UnknownModelClass(LoadError, ValueError):
    """No model class can be told from the arguments and the config (CFG-5)."""


class UnsupportedOption(LoadError, ValueError):
    """An option of `from_pretrained` that this loader does not carry out."""
