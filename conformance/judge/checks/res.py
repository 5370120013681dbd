"""RES: where the files come from."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from conformance.judge.checks.evidence import Evidence, check, unless_equal
from conformance.judge.checks.stored import weight_files
from conformance.results.records import Divergence


def _as_from_folder(seen: Evidence) -> Iterator[Divergence]:
    for name, facts in seen.plain_load.tensors.items():
        if facts["persistent"]:
            found = seen.tensors.get(name, {}).get("fingerprint", "absent")
            yield from unless_equal("values", name, facts["fingerprint"], found)


@check("RES-14", "RES-15", "RES-18")
def values_as_from_folder(seen: Evidence) -> Iterator[Divergence]:
    """The values are those of a load from the folder that was published."""
    yield from _as_from_folder(seen)


@check("RES-16")
def served_from_cache(seen: Evidence) -> Iterator[Divergence]:
    """The values are those of the folder, and the Hub sends nothing of a file that is in the cache;
    with `force_download` it sends every weight file, in offline mode nothing is requested."""
    yield from _as_from_folder(seen)
    assert seen.case.hub is not None
    options, hub, asked = seen.case.options, seen.case.hub, seen.observation.asked
    forced = options.get("force_download")
    for name, sent in asked.items():
        if hub.offline or options.get("local_files_only"):
            yield Divergence("state", name, "not asked for", f"asked for, {sent} bytes sent")
        elif not forced and (seen.folder / name).is_file() and _matches(name, hub.cached):
            yield from unless_equal("state", name, "0 bytes sent", f"{sent} bytes sent")
    for path in weight_files(seen.case, seen.folder) if forced else ():
        size, found = path.stat().st_size, asked.get(path.name, 0)
        yield from unless_equal("state", path.name, f"{size} bytes sent", f"{found} bytes sent")


def _matches(name: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)
