"""What libraries hold by name: the attributes of their modules and classes, and their tables.

A loader may replace a function while it works, and it must put the function back. No list of
functions is kept here: every module of the packages is compared that is imported when a load
begins, with the classes it defines and the dicts and lists it holds, entry by entry, by identity.
"""

from __future__ import annotations

import sys
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from operator import is_
from types import MappingProxyType, ModuleType
from typing import Any

# Packages of which every module is compared: all, and those that every load touches. A comparison
# of the latter costs a few milliseconds, and there are two for each load.
ALL = (
    *("torch", "transformers", "accelerate", "safetensors", "numpy", "builtins", "sys", "gc", "io"),
    *("os", "posixpath", "pathlib", "json", "pickle", "logging", "warnings", "random", "threading"),
    *("tempfile", "shutil", "signal", "time", "mmap", "zipfile", "copy", "functools", "contextlib"),
    *("inspect", "hashlib", "struct", "subprocess", "socket", "atexit", "traceback", "re"),
)
USUAL = (
    *("torch.nn.init", "torch.nn.modules", "torch.nn.parameter", "torch.nn.functional"),
    *("torch.utils.data.dataloader", "torch.utils.data.sampler", "torch.utils._device"),
    *("torch.backends", "torch.serialization", "torch.random", "torch._tensor", "torch.storage"),
    *("torch.autograd.grad_mode", "torch.autograd.function", "torch.overrides"),
    *("transformers.modeling_utils", "transformers.core_model_loading"),
    *("transformers.initialization", "transformers.configuration_utils"),
    *("transformers.conversion_mapping", "transformers.models.llama"),
    *("transformers.generation.utils", "transformers.generation.configuration_utils"),
    *("transformers.utils.hub", "transformers.utils.logging", "transformers.utils.generic"),
    *("transformers.integrations.accelerate", "transformers.integrations.tensor_parallel"),
    *("transformers.pytorch_utils", "transformers.modeling_rope_utils", "transformers.quantizers"),
    *("accelerate.hooks", "accelerate.big_modeling", "accelerate.utils.modeling"),
    *("accelerate.utils.offload", "safetensors", "builtins", "sys", "gc", "io", "os", "json"),
    *("pickle", "logging", "warnings", "random", "threading", "tempfile", "shutil", "signal"),
    *("pathlib", "mmap"),
)

# What a load may change, by name: a glob, and why.
ALLOWED = MappingProxyType(
    {
        "torch.Storage": "follows the default dtype, which is compared itself",
        "torch.utils.hooks.RemovableHandle.next_id": "counts the hooks of all models",
        "torch.utils._pytree.*": "classes of outputs are registered when they are imported",
        "torch.export.*": "classes of outputs are registered when they are imported",
        "torch.fx.*": "memoised by the compiler",
        "torch._dynamo.*": "memoised by the compiler",
        "torch.distributed.*": "memoised",
        "torch.library.*": "operators are registered when they are imported",
        "transformers.*_CAN_RECORD_REGISTRY*": "memoised by transformers for a model class",
        "transformers.*_cached_value": "memoised by transformers for a model class",
        "transformers.utils.generic.*": "classes of outputs are registered when they are imported",
        "transformers.utils.hub._hf_api": "one client of the Hub a process",
        "transformers.utils.auto_docstring.*": "texts for documentation",
        "transformers.models.auto.*: *": "classes are registered when they are imported",
        "*.__all__*": "names for documentation",
        "*._import_structure*": "what is imported late",
        "*._class_to_module*": "what is imported late",
        "*.__slotnames__": "memoised by copying and pickling",
        "*.__abstractmethods__": "memoised by Python",
        "*._abc_impl": "memoised by Python",
        "torch.nn.modules.module.Module.smart_apply": "added by transformers on first use",
        "*_cache": "memoised",
        "*._cache*": "memoised",
        "*_cache: *": "memoised",
        "*_CACHE: *": "memoised",
        "sys.modules: *": "modules are imported; those that are lost are compared",
        "sys.last_*": "the error that the interpreter showed last",
        "time.tzname": "read from the environment",
        "tempfile._name_sequence": "made on first use",
        "tempfile.tempdir": "found on first use",
        "threading._*": "threads are compared themselves",
        "logging._handler*": "handlers are compared with their loggers",
        "re.*: *": "memoised",
        "warnings.filters*": "compared as a fact of its own",
        "warnings._filters_version": "memoised",
        "warnings.onceregistry: *": "warnings that were shown",
        "builtins._": "the last value in an interactive session",
        "os.environ*": "compared by name",
        "sys.path": "compared as a setting",
        "sys.path: *": "compared as a setting",
        "sys.path_importer_cache: *": "memoised by imports",
    }
)

# Tables of a module or a class; a class of tables of its own may make entries as they are read.
TABLES = (dict, OrderedDict, defaultdict, list)


@dataclass
class _Held:
    """A module, a class or a table, and its entries when it was last looked at.

    Attributes:
        name: dotted.
        owner: it.
        kept: its entries; a list's by position.
    """

    name: str
    owner: Any
    kept: Any = None

    def entries(self) -> Any:
        """The entries now: a mapping, or the list itself."""
        return self.owner if type(self.owner) in TABLES else vars(self.owner)

    def keep(self) -> None:
        """Note the entries as they are now."""
        self.kept = list(self.owner) if type(self.owner) is list else dict(self.entries())

    def same(self) -> bool:
        """Whether every entry is the very object that it was; quick, and may be wrongly false."""
        now, kept = self.entries(), self.kept
        if kept is None or len(now) != len(kept):
            return False
        if type(now) is list:
            return all(map(is_, now, kept))
        return all(map(is_, now.values(), kept.values()))

    def changes(self) -> Iterator[tuple[str, Any]]:
        """Name and key of every entry that was replaced, removed or added.

        What is added to a module does not count: that is how it is given what is imported late.
        """
        now, kept = (_by_key(each) for each in (self.entries(), self.kept))
        keys = dict.fromkeys(kept) if isinstance(self.owner, ModuleType) else {**kept, **now}
        form = "{}: {!r}" if type(self.owner) in TABLES else "{}.{}"
        for key in keys:
            if key not in now or key not in kept or now[key] is not kept[key]:
                yield form.format(self.name, key), key

    def put_back(self) -> None:
        """Undo every change that counts."""
        if type(self.owner) is list:
            self.owner[:] = self.kept
            return
        for name, key in list(self.changes()):
            with suppress(AttributeError, TypeError):  # a member that cannot be set
                if not _is_allowed(name):
                    self._set(key)

    def _set(self, key: Any) -> None:
        if isinstance(self.owner, dict):
            if key in self.kept:
                self.owner[key] = self.kept[key]
            else:
                del self.owner[key]
        elif key in self.kept:
            setattr(self.owner, key, self.kept[key])
        else:
            delattr(self.owner, key)


def _by_key(entries: Any) -> Any:
    return dict(enumerate(entries)) if isinstance(entries, list) else dict(entries)


class Libraries:
    """Everything that is compared; kept from load to load, since most of it never changes."""

    def __init__(self, packages: tuple[str, ...]) -> None:
        self._packages = packages
        self._seen: set[str] = set()
        self._objects: set[int] = set()
        self.held: list[_Held] = []

    def refresh(self) -> None:
        """Note all entries as they are now."""
        for name, module in list(sys.modules.items()):
            if name not in self._seen:
                self._seen.add(name)
                if isinstance(module, ModuleType) and _is_of(name, self._packages):
                    self._add_module(name, module)
        for each in self.held:
            if not each.same():
                each.keep()

    def replaced(self) -> list[str]:
        """The names of the functions, switches and entries of tables that were replaced."""
        return sorted({name for _, name in self._changed()})

    def put_back(self) -> None:
        """Undo every replacement."""
        for held in {id(each): each for each, _ in self._changed()}.values():
            held.put_back()

    def _changed(self) -> list[tuple[_Held, str]]:
        differing = [each for each in self.held if not each.same()]
        found = ((each, name) for each in differing for name, _ in each.changes())
        return [(each, name) for each, name in found if not _is_allowed(name)]

    def _add_module(self, name: str, module: ModuleType) -> None:
        self._add(name, module)
        for attribute, value in list(vars(module).items()):
            self._add_table(f"{name}.{attribute}", value)
            if isinstance(value, type) and _is_of(str(value.__module__), self._packages):
                dotted = f"{value.__module__}.{value.__qualname__}"
                self._add(dotted, value)
                for inner, table in list(vars(value).items()):
                    self._add_table(f"{dotted}.{inner}", table)

    def _add_table(self, name: str, table: Any) -> None:
        if type(table) in TABLES and not _is_allowed(f"{name}: "):
            self._add(name, table)

    def _add(self, name: str, owner: Any) -> None:
        if id(owner) not in self._objects:
            self._objects.add(id(owner))
            self.held.append(_Held(name, owner))


# One for each extent of what is compared.
_KEPT: dict[tuple[str, ...], Libraries] = {}


def libraries(packages: tuple[str, ...] = USUAL) -> Libraries:
    """The entries of `USUAL` packages, or of `ALL`, as they are now."""
    found = _KEPT.setdefault(packages, Libraries(packages))
    found.refresh()
    return found


def _is_of(module: str, packages: tuple[str, ...]) -> bool:
    """Whether the module is one of the packages or within one; torch itself always is."""
    return module == "torch" or any(
        module == package or module.startswith(f"{package}.") for package in packages
    )


def _is_allowed(name: str) -> bool:
    return any(fnmatchcase(name, glob) for glob in ALLOWED)
