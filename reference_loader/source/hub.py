"""A repository on the Hub: the files that a load will read, in the cache, all of one commit.

Everything that touches the network or the cache is done by `huggingface_hub`: here is decided only
what to ask it for, and what its errors mean. No release of it is preferred: those with `requests`
and those with `httpx` differ in what they raise, and end here as the same `LoadError`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path, PurePosixPath

from reference_loader.errors import (
    AccessRefused,
    ConfigNotFound,
    DownloadFailed,
    LoadError,
    NotInCache,
    RevisionNotFound,
    ShardNotFound,
    SourceNotFound,
    WeightsNotFound,
)
from reference_loader.options import Options
from reference_loader.source.config_file import read_config
from reference_loader.source.index import parse_index
from reference_loader.source.weight_names import weight_names

CONFIG, GENERATION = "config.json", "generation_config.json"

# How often a file is asked for if its connection breaks; each time it goes on where it was cut.
# Clients from 1.0 on do so themselves, an older one only for some ways of being cut.
ATTEMPTS = 3


def fetch(source: str, options: Options) -> Path:
    """The snapshot folder of a repository, with all that a load will read.

    These are the config, the generation config, and the weights that win; of an index, the shards
    that it names. What the cache holds is not downloaded again, unless `force_download` says so.
    The revision is resolved once, so that all files are of one commit.

    Args:
        source: the id of the repository.
        options: `subfolder`, `variant`, `use_safetensors`, `config`, and how to ask: `revision`,
            `cache_dir`, `token`, `local_files_only`, `force_download`.

    Returns:
        The folder of the commit; `subfolder` is inside it.

    Raises:
        SourceNotFound: no id, or no such repository, or a private one and no token for it.
        RevisionNotFound: the repository has no such branch, tag or commit.
        AccessRefused: the repository is there, and not for this token.
        ConfigNotFound, WeightsNotFound, ShardNotFound: the commit has no such file.
        NotInCache: offline, and a file that is needed is not in the cache.
        DownloadFailed: the Hub cannot be reached or fails, or the connection broke.
        BadIndex, UnsafePath: see `parse_index`.
    """
    state = _State(source, options, options.revision or "main")
    if options.force_download and state.offline:
        raise NotInCache(
            f"The {state.what()} shall be downloaded anew, and the Hub must not be asked.",
            "Leave out `force_download`, or `local_files_only` and HF_HUB_OFFLINE.",
        )
    named = _config(state)
    with suppress(NotInCache):  # what is not there offline may not be there at all
        state.get(GENERATION)
    name, chosen = _weights(state, weight_names(options, named))
    folder = state.folder(name, chosen)
    if chosen.suffix == ".json":
        _shards(state, chosen, folder / options.subfolder)
    return folder


def fetch_config(source: str, options: Options) -> Path:
    """The folder of a repository's config, where that is given by an id of its own.

    Args, Raises: see `fetch`.
    """
    state = _State(source, options, options.revision or "main")
    path = state.get(CONFIG)
    if path is None:
        raise ConfigNotFound(f"There is no {state.what(CONFIG)}.", "Pass another `config`.")
    return path.parent


def _shards(state: _State, index: Path, base: Path) -> None:
    """Get the shards that the index names, and no other."""
    for shard in parse_index(index).shards:
        name = shard.relative_to(base).as_posix()
        if state.get(name) is None:
            raise ShardNotFound(
                f"The index {index.name!r} names a shard, but there is no {state.what(name)}.",
                "Ask the repository's owner to upload the shard.",
            )


def _config(state: _State) -> str | None:
    """Get the config, which tells the commit, and the weight file that it names, if it does."""
    given = state.options.config
    try:
        path = state.get(CONFIG)
    except NotInCache:
        if given is None:
            raise
        path = None
    if isinstance(given, (str, PathLike)):
        return read_config(Path(given)).get("transformers_weights")
    if given is not None:
        return getattr(given, "transformers_weights", None)
    if path is None:
        raise ConfigNotFound(f"There is no {state.what(CONFIG)}.", "Pass `config`.")
    return read_config(path.parent).get("transformers_weights")


def _weights(state: _State, names: list[str]) -> tuple[str, Path]:
    """The first of the names that the commit has."""
    unknown: list[str] = []
    for name in names:
        try:
            path = state.get(name)
        except NotInCache:
            unknown.append(name)
            continue
        if path is not None:
            return name, path
    if unknown:
        raise state.not_in_cache(*unknown)
    raise WeightsNotFound(
        f"There are no weights in the {state.what()}; looked for {', '.join(names)}.",
        "Check the repository, `subfolder`, `revision`, `variant` and `use_safetensors`.",
    )


@dataclass
class _State:
    """One state of a repository, whose files are asked for one at a time.

    Attributes:
        repository: its id.
        options: how to ask.
        revision: what to ask for: the revision given, and once it is known its commit, so that a
            push in between does not mix two states.
    """

    repository: str
    options: Options
    revision: str

    @property
    def offline(self) -> bool:
        """Whether the Hub must not be asked."""
        from huggingface_hub import constants

        return bool(self.options.local_files_only or constants.HF_HUB_OFFLINE)

    def get(self, name: str) -> Path | None:
        """A file in the cache, downloaded if need be; None if the commit has none of that name.

        Raises:
            LoadError: see `fetch`.
        """
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        inside = self._inside(name)
        try:
            if self._known_to_be_absent(inside):
                return None
            path = _download(self, inside)
        except Exception as cause:  # each network library has a family of its own
            if isinstance(cause, EntryNotFoundError) and not isinstance(
                cause, LocalEntryNotFoundError
            ):
                # The answer "no such file" also says in which commit.
                self._pin(cause.response.headers.get("X-Repo-Commit"))
                return None
            raise _meaning(cause, self, name) from cause
        self._pin(self.folder(name, path).name)
        return path

    def folder(self, name: str, path: Path) -> Path:
        """The folder of the commit, from one of its files."""
        return path.parents[len(PurePosixPath(self._inside(name)).parts) - 1]

    def what(self, name: str = "") -> str:
        """What was asked for, in words."""
        told = f"repository {self.repository!r} at revision {self.options.revision or 'main'!r}"
        if name:
            return f"file {self._inside(name)!r} in the {told}"
        return (
            f"folder {self.options.subfolder!r} of the {told}" if self.options.subfolder else told
        )

    def not_in_cache(self, *names: str) -> NotInCache:
        """The error for files that would have to be downloaded."""
        why = "`local_files_only`" if self.options.local_files_only else "offline mode"
        files = " or ".join(repr(self._inside(name)) for name in names)
        return NotInCache(
            f"The cache has no {files} of the {self.what()}, and {why} forbids to ask the Hub.",
            "Load it once without `local_files_only` and HF_HUB_OFFLINE, or check `cache_dir`.",
        )

    def _inside(self, name: str) -> str:
        return (PurePosixPath(self.options.subfolder) / name).as_posix()

    def _pin(self, commit: str | None) -> None:
        self.revision = commit or self.revision

    def _known_to_be_absent(self, inside: str) -> bool:
        """Whether it was asked for before; what a commit has not, it never gets."""
        from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

        if self.options.force_download or not re.fullmatch("[0-9a-f]{40}", self.revision):
            return False
        found = try_to_load_from_cache(
            self.repository, inside, cache_dir=self.options.cache_dir, revision=self.revision
        )
        return found is _CACHED_NO_EXIST


def _download(state: _State, inside: str) -> Path:
    """Let the library find or download a file; its progress bar shows on a terminal only."""
    from huggingface_hub import hf_hub_download

    options, attempt = state.options, 1
    while True:
        try:
            return Path(
                hf_hub_download(
                    state.repository,
                    inside,
                    revision=state.revision,
                    cache_dir=options.cache_dir,
                    token=options.token,
                    local_files_only=options.local_files_only,
                    force_download=options.force_download,
                )
            )
        except OSError as cause:
            if attempt == ATTEMPTS or not _was_cut(cause):
                raise
            attempt += 1


def _was_cut(cause: OSError) -> bool:
    """A broken connection: neither an answer that the client understood nor a full disk."""
    return cause.errno is None and not type(cause).__module__.startswith("huggingface_hub")


def _meaning(cause: Exception, state: _State, name: str) -> LoadError:
    """What an error of the library says of the load."""
    from huggingface_hub import errors

    where = state.what(name)
    if isinstance(cause, errors.LocalEntryNotFoundError) and state.offline:
        return state.not_in_cache(name)
    if isinstance(cause, errors.HFValidationError):
        return SourceNotFound(
            f"{state.repository!r} is no folder and no id of a repository: {_told(cause)}.",
            "Check the path; an id is `name` or `owner/name`.",
        )
    # The library says "not in the cache" too where the Hub failed, and why in the cause.
    told = isinstance(cause, (errors.LocalEntryNotFoundError, ValueError))
    if told and isinstance(cause.__cause__, Exception):
        return _meaning(cause.__cause__, state, name)
    return _answered(cause, where)


def _answered(cause: Exception, where: str) -> LoadError:
    """What the Hub's own answer says, if it gave one."""
    from huggingface_hub import errors

    if isinstance(cause, (errors.GatedRepoError, errors.LocalTokenNotFoundError)):
        return _refused(cause, where)
    if isinstance(cause, errors.RepositoryNotFoundError):
        return SourceNotFound(
            f"There is no {where}: no folder and no repository of that name can be seen.",
            "Check the id. If the repository is private, pass `token` or run `hf auth login`.",
        )
    if isinstance(cause, errors.RevisionNotFoundError):
        return RevisionNotFound(
            f"There is no {where}: the repository has no such revision.",
            "Check `revision`: a branch, a tag, or a whole commit id.",
        )
    if isinstance(cause, errors.HfHubHTTPError) and cause.response.status_code in (401, 403):
        return _refused(cause, where)
    return _failed(cause, where)


def _refused(cause: Exception, where: str) -> AccessRefused:
    return AccessRefused(
        f"Access to the {where} is refused: {_told(cause)}.",
        "Ask for access on the repository's page, then pass `token` or run `hf auth login`.",
    )


def _failed(cause: Exception, where: str) -> DownloadFailed:
    return DownloadFailed(
        f"The {where} could not be downloaded: {_told(cause)}.",
        "Check the connection and the disk, and try again: what is complete is kept.",
    )


def _told(cause: Exception) -> str:
    """An error of the library in one line."""
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[0].rstrip('. ')}" if lines else type(cause).__name__
