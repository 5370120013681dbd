"""Code that a checkpoint brings along: what its config names, and the refusal to run it (FMT-22).

A config names code in three ways: `auto_map` gives classes of Python files in the checkpoint
(`module.Class`) or in another repository (`owner/name--module.Class`); `attn_implementation` may
give a kernel in a repository (`owner/name`); and the file `custom_generate/generate.py` replaces
`generate`. `imported` and `take_custom_generate` run it, for a caller who trusts it (FMT-23).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from reference_loader.errors import BadConfig, RemoteCodeRefused
from reference_loader.options import Options

HINT = "Read the code; if you trust it, pass `trust_remote_code=True`."


def trusted(options: Options) -> bool:
    """Whether the caller allows code of the checkpoint to run; only the value True does."""
    return options.trust_remote_code is True


def class_reference(auto_map: Any, auto_class: str) -> str | None:
    """What an `auto_map` gives for an Auto class, or None.

    Example:
        >>> class_reference({"AutoConfig": "configuration_tiny.TinyConfig"}, "AutoConfig")
        'configuration_tiny.TinyConfig'
    """
    found = auto_map.get(auto_class) if isinstance(auto_map, Mapping) else None
    return found if isinstance(found, str) else None


def reference_to(auto_map: Any, class_name: str) -> str | None:
    """The reference of an `auto_map` to a class of this name, or None."""
    names = auto_map if isinstance(auto_map, Mapping) else {}
    references = (class_reference(auto_map, name) for name in names)
    return next((each for each in references if each and _class_of(each) == class_name), None)


def refusal(reference: str, config: str) -> RemoteCodeRefused:
    """The error for code that a load needs and may not run.

    Args:
        reference: `module.Class`, perhaps after `owner/name--`.
        config: the file that names it.
    """
    repository, _, inner = reference.rpartition("--")
    where = f"in the repository {repository!r}" if repository else "in the checkpoint"
    return RemoteCodeRefused(
        f"The file {config} needs the class {_class_of(reference)} of the file "
        f"{inner.rpartition('.')[0]}.py {where}, and code of a checkpoint is not run.",
        HINT,
    )


def refuse_kernels(config: Any, options: Options) -> None:
    """Refuse an attention kernel of a repository that the caller did not ask for.

    Args:
        config: the content of config.json, or a config object.

    Raises:
        RemoteCodeRefused: the config, or a config inside it, names one.
    """
    given = options.attn_implementation
    if trusted(options) or (isinstance(config, Mapping) and isinstance(given, str)):
        return
    asked = set(given.values()) if isinstance(given, Mapping) else {given}
    for named in _attentions(config):
        if isinstance(named, str) and "/" in named and named not in asked:
            raise RemoteCodeRefused(
                f"The config names the attention kernel {named!r}, code in another repository, "
                "and code of a checkpoint is not run.",
                "Pass `attn_implementation`, or `trust_remote_code=True` if you trust the kernel.",
            )


def nested_reference(config: Any) -> str | None:
    """The first reference to code in the configs inside a config, or None."""
    for part in parts(config):
        if part is config:
            continue
        auto_map = getattr(part, "auto_map", None)
        for name in auto_map if isinstance(auto_map, Mapping) else ():
            if reference := class_reference(auto_map, name):
                return reference
    return None


def _attentions(config: Any) -> Iterator[Any]:
    """Every attention that a config names; releases before 5 ignore those in config.json."""
    for part in parts(config):
        read = part.get if isinstance(part, Mapping) else partial(getattr, part)
        for name in ("attn_implementation", "_attn_implementation"):
            named = read(name, None)
            yield from named.values() if isinstance(named, Mapping) else (named,)


def parts(config: Any) -> Iterator[Any]:
    """A config, or the content of one, and every one inside it, at any depth."""
    waiting, seen = [config], set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        inside = part if isinstance(part, Mapping) else vars(part)
        waiting += [
            value
            for value in inside.values()
            if hasattr(value, "to_dict") or (inside is part and isinstance(value, Mapping))
        ]


def origin(folder: Path, subfolder: str) -> tuple[str, dict[str, Any]]:
    """Where the code of a checkpoint is: the folder, or the repository and how to ask for it.

    The code is at the top of a checkpoint whose weights are in a subfolder.

    Returns:
        A path or a repository id; and the commit and the cache of a repository.
    """
    inner = Path(subfolder).parts
    if inner and folder.parts[-len(inner) :] == inner:
        folder = folder.parents[len(inner) - 1]
    repository = folder.parents[1] if len(folder.parents) > 1 else folder
    if folder.parent.name != "snapshots" or not repository.name.startswith("models--"):
        return str(folder), {}
    name = repository.name.removeprefix("models--").replace("--", "/", 1)
    return name, {"revision": folder.name, "cache_dir": str(repository.parent)}


def imported(
    fetch: Callable[..., Any], reference: str, folder: Path, options: Options
) -> type[Any]:
    """The class of the checkpoint's code; only for a caller who trusts it (FMT-23).

    Args:
        fetch: `get_class_from_dynamic_module` of transformers.
        reference: see `refusal`.
        folder: contains the config that names it.

    Raises:
        BadConfig: the file or the class does not exist, or its import raises.
    """
    where, hub = origin(folder, options.subfolder)
    try:
        found = fetch(reference, where, code_revision=options.code_revision, **hub, **_hub(options))
    except Exception as cause:  # anything that the code does
        raise BadConfig(
            f"The class {reference} that the config in {folder} names cannot be imported: {cause}",
            "Check the code, and that the packages it imports are installed.",
        ) from cause
    if not isinstance(found, type):
        raise BadConfig(
            f"{reference}, named by the config in {folder}, is not a class.",
            "Correct the entry in `auto_map`.",
        )
    return found


def take_custom_generate(model: Any, folder: Path, options: Options) -> None:
    """Replace `generate` by the checkpoint's own, if it has one; only for a caller who trusts it.

    Raises:
        BadConfig: its import raises.
    """
    where, hub = origin(folder, options.subfolder)
    try:
        custom = model.load_custom_generate(where, trust_remote_code=True, **hub, **_hub(options))
    except OSError:  # it has none
        return
    except Exception as cause:  # anything that the code does
        raise BadConfig(
            f"custom_generate/generate.py of {folder} cannot be imported: {cause}",
            "Check the code, and that the packages it imports are installed.",
        ) from cause
    model.generate = partial(custom, model=model)


class _Askers:
    """How many loads are under way, and what the limit is when there are none."""

    def __init__(self) -> None:
        self.lock, self.count, self.seconds = threading.Lock(), 0, 0


_askers = _Askers()
# A child forked during a load of another thread has no such load.
os.register_at_fork(after_in_child=lambda: vars(_askers).update(vars(_Askers())))


@contextmanager
def never_asking(dynamic_modules: Any) -> Iterator[None]:
    """Within, transformers raises a ValueError where it would ask on standard input (FMT-22).

    Model classes build their parts with Auto classes, which ask whether code may run if a config
    inside the config names some. With a time limit of 0 they do not ask, as in transformers' own
    tests. Until the last load ends that holds for every thread.

    Args:
        dynamic_modules: the module `transformers.dynamic_module_utils`.
    """
    with _askers.lock:
        if _askers.count == 0:
            _askers.seconds = dynamic_modules.TIME_OUT_REMOTE_CODE
        _askers.count += 1
        dynamic_modules.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    finally:
        with _askers.lock:
            _askers.count -= 1
            if _askers.count == 0:
                dynamic_modules.TIME_OUT_REMOTE_CODE = _askers.seconds


def _hub(options: Options) -> dict[str, Any]:
    return {"token": options.token, "local_files_only": options.local_files_only}


def _class_of(reference: str) -> str:
    return reference.rpartition(".")[2]
