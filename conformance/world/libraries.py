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
from fnmatch import fnmatchcase
from functools import cache
from itertools import chain
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
        "torch.utils._device.CURRENT_DEVICE": "the default device, which is compared itself",
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

# Modules, classes and tables that are looked at in one step.
GROUP = 64


class _Held:
    """A module, a class or a table, and its entries when it was last looked at."""

    def __init__(self, name: str, owner: Any) -> None:
        self.name = name
        self.owner = owner
        # The entries as they are at any time: a mapping, or the list itself.
        self.entries: Any = owner if type(owner) in TABLES else vars(owner)
        self.kept = _by_key(self.entries)

    @property
    def values(self) -> Any:
        """The entries' values as they are at any time."""
        return self.entries if type(self.entries) is list else self.entries.values()

    def keep(self) -> None:
        """Note the entries as they are now."""
        self.kept = _by_key(self.entries)

    def changes(self) -> Iterator[tuple[str, Any]]:
        """Name and key of every entry that was replaced, removed or added.

        What is added to a module does not count: that is how it is given what is imported late.
        """
        now, kept = _by_key(self.entries), self.kept
        keys = dict.fromkeys(kept) if isinstance(self.owner, ModuleType) else {**kept, **now}
        form = "{}: {!r}" if type(self.owner) in TABLES else "{}.{}"
        for key in keys:
            if key not in now or key not in kept or now[key] is not kept[key]:
                yield form.format(self.name, key), key

    def put_back(self) -> None:
        """Undo every change that counts."""
        if type(self.owner) is list:
            self.owner[:] = self.kept.values()
            return
        for name, key in list(self.changes()):
            with suppress(AttributeError, TypeError):  # a member that cannot be set
                if not _is_allowed(name):
                    self._set(key)

    def _set(self, key: Any) -> None:
        """Give the entry the value that it had, or remove it."""
        if isinstance(self.owner, dict):
            if key in self.kept:
                self.owner[key] = self.kept[key]
            else:
                del self.owner[key]
        elif key in self.kept:
            setattr(self.owner, key, self.kept[key])
        else:
            delattr(self.owner, key)


def _by_key(entries: Any) -> dict[Any, Any]:
    """The entries as a dict; a list's by position."""
    return dict(enumerate(entries)) if type(entries) is list else dict(entries)


class _Group:
    """Some of what is compared, looked at in one step: most of it never changes."""

    def __init__(self) -> None:
        self.held: list[_Held] = []
        self._values: list[Any] = []
        self._kept: list[Any] = []

    def add(self, held: _Held) -> None:
        """Compare this too."""
        self.held.append(held)
        self._values.append(held.values)
        self._kept += held.values

    def same(self) -> bool:
        """Whether every entry is the very object that it was."""
        if sum(map(len, self._values)) != len(self._kept):
            return False
        return all(map(is_, chain.from_iterable(self._values), self._kept))

    def keep(self) -> None:
        """Note all entries as they are now."""
        self._kept = list(chain.from_iterable(self._values))
        for each in self.held:
            each.keep()


class Libraries:
    """Everything that is compared; kept from load to load, since most of it never changes."""

    def __init__(self, packages: tuple[str, ...]) -> None:
        self._packages = packages
        self._seen: set[str] = set()
        self._objects: set[int] = set()
        self._groups: list[_Group] = []

    def refresh(self) -> None:
        """Note all entries as they are now."""
        for group in self._groups:
            if not group.same():
                group.keep()
        for name in sorted(sys.modules.keys() - self._seen):
            self._seen.add(name)
            module = sys.modules.get(name)
            if isinstance(module, ModuleType) and _is_of(name, self._packages):
                self._add_module(name, module)

    def replaced(self) -> list[str]:
        """The names of the functions, switches and entries of tables that were replaced."""
        return sorted({name for _, name in self._changed()})

    def put_back(self) -> None:
        """Undo every replacement."""
        for held in {id(each): each for each, _ in self._changed()}.values():
            held.put_back()

    def _changed(self) -> list[tuple[_Held, str]]:
        """What changed, but what may."""
        differing = [each for group in self._groups if not group.same() for each in group.held]
        found = ((each, name) for each in differing for name, _ in each.changes())
        return [(each, name) for each, name in found if not _is_allowed(name)]

    def _add_module(self, name: str, module: ModuleType) -> None:
        """Compare a module, its tables, and the classes it has of these packages."""
        self._add(name, module)
        for attribute, value in list(vars(module).items()):
            self._add_table(f"{name}.{attribute}", value)
            if isinstance(value, type) and _is_of(str(value.__module__), self._packages):
                dotted = f"{value.__module__}.{value.__qualname__}"
                self._add(dotted, value)
                for inner, table in list(vars(value).items()):
                    self._add_table(f"{dotted}.{inner}", table)

    def _add_table(self, name: str, table: Any) -> None:
        """Compare a dict or a list, unless any entry may change."""
        if type(table) in TABLES and not _is_allowed(f"{name}: "):
            self._add(name, table)

    def _add(self, name: str, owner: Any) -> None:
        """Compare this, once."""
        if id(owner) in self._objects:
            return
        self._objects.add(id(owner))
        if not self._groups or len(self._groups[-1].held) == GROUP:
            self._groups.append(_Group())
        self._groups[-1].add(_Held(name, owner))


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


@cache
def _is_allowed(name: str) -> bool:
    """Whether a load may change this."""
    return any(fnmatchcase(name, glob) for glob in ALLOWED)
