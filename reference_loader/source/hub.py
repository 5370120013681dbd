"""Downloading the files of a Hub repository that a load reads, all of one commit.

`huggingface_hub` does everything that touches the network or the cache. This file decides which
files to ask it for and turns its errors into a `LoadError`. Its releases differ in what they raise,
some with `requests` and some with `httpx`; the `LoadError` is the same.
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

# How often a file is requested if its connection breaks; each attempt resumes the download.
# huggingface_hub from 1.0 on retries by itself, older releases only after some failures.
ATTEMPTS = 3


def fetch(source: str, options: Options) -> Path:
    """Download what a load reads and return the folder of the commit (RES-14 to RES-20).

    These files are the config, the generation config, and the weight file to load or the index with
    its shards. Cached files are not downloaded again, unless `force_download` is set. The revision
    is resolved once, so that all files come from one commit.

    Args:
        source: the repository id.
        options: `subfolder`, `variant`, `use_safetensors`, `config` say which files; `revision`,
            `cache_dir`, `token`, `local_files_only`, `force_download` say how to ask.

    Returns:
        The folder of the commit in the cache; it contains `subfolder`.

    Raises:
        SourceNotFound: the id is invalid, or the repository does not exist or is not visible with
            this token.
        RevisionNotFound: the repository has no such branch, tag or commit.
        AccessRefused: the token gives no access to the repository.
        ConfigNotFound, WeightsNotFound, ShardNotFound: the commit has no such file.
        NotInCache: offline, and a required file is not in the cache.
        DownloadFailed: the Hub is unreachable or reports an error, or the connection broke.
        BadIndex, UnsafePath: see `parse_index`.
    """
    state = _State(source, options, options.revision or "main")
    if options.force_download and state.offline:
        raise NotInCache(
            f"`force_download` cannot download the {state.what()} again, because requests to the "
            "Hub are disabled.",
            "Leave out `force_download`, or enable requests: no `local_files_only`, no "
            "HF_HUB_OFFLINE.",
        )
    named = _config(state)
    with suppress(NotInCache):  # it is optional, and may not exist at all
        state.get(GENERATION)
    name, chosen = _weights(state, weight_names(options, named))
    folder = state.folder(name, chosen)
    if chosen.suffix == ".json":
        _shards(state, chosen, folder / options.subfolder)
    return folder


def fetch_config(source: str, options: Options) -> Path:
    """Download `config.json` alone and return its folder, for an id as the option `config`.

    Args, Raises: see `fetch`.
    """
    state = _State(source, options, options.revision or "main")
    path = state.get(CONFIG)
    if path is None:
        raise ConfigNotFound(f"There is no {state.what(CONFIG)}.", "Pass another `config`.")
    return path.parent


def _shards(state: _State, index: Path, base: Path) -> None:
    """Download the shards that the index names, and no other file."""
    for shard in parse_index(index).shards:
        name = shard.relative_to(base).as_posix()
        if state.get(name) is None:
            raise ShardNotFound(
                f"The index {index.name!r} names a shard, but there is no {state.what(name)}.",
                "Ask the owner of the repository to upload the shard.",
            )


def _config(state: _State) -> str | None:
    """Download the config, which fixes the commit; return the weight file it names, if any."""
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
    """Download the first of `names` that the commit has; return that name and the file."""
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
        f"The {state.what()} contains no weights; expected one of {', '.join(names)}.",
        "Check the repository, `subfolder`, `revision`, `variant` and `use_safetensors`.",
    )


@dataclass
class _State:
    """A repository at one revision, whose files are requested one at a time.

    Attributes:
        repository: its id.
        options: how to ask.
        revision: the revision to ask for: the option, then its commit once that is known. So a push
            during the load cannot mix two commits (RES-15).
    """

    repository: str
    options: Options
    revision: str

    @property
    def offline(self) -> bool:
        """Whether requests to the Hub are disabled."""
        from huggingface_hub import constants

        return bool(self.options.local_files_only or constants.HF_HUB_OFFLINE)

    def get(self, name: str) -> Path | None:
        """The file in the cache, downloaded if necessary; None if the commit does not have it.

        Raises:
            LoadError: see `fetch`.
        """
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        inside = self._inside(name)
        try:
            if self._known_to_be_absent(inside):
                return None
            path = _download(self, inside)
        except Exception as cause:  # each network library has its own exceptions
            if isinstance(cause, EntryNotFoundError) and not isinstance(
                cause, LocalEntryNotFoundError
            ):
                # The response "no such file" also names the commit.
                self._pin(cause.response.headers.get("X-Repo-Commit"))
                return None
            raise _meaning(cause, self, name) from cause
        self._pin(self.folder(name, path).name)
        return path

    def folder(self, name: str, path: Path) -> Path:
        """The folder of the commit, from one of its files."""
        return path.parents[len(PurePosixPath(self._inside(name)).parts) - 1]

    def what(self, name: str = "") -> str:
        """The repository, or a file in it, as an error message names it."""
        whole = f"repository {self.repository!r} at revision {self.options.revision or 'main'!r}"
        if name:
            return f"file {self._inside(name)!r} in the {whole}"
        subfolder = self.options.subfolder
        return f"folder {subfolder!r} of the {whole}" if subfolder else whole

    def not_in_cache(self, *names: str) -> NotInCache:
        """The error for files that would have to be downloaded."""
        why = "`local_files_only`" if self.options.local_files_only else "offline mode"
        files = " or ".join(repr(self._inside(name)) for name in names)
        return NotInCache(
            f"The cache does not contain {files} of the {self.what()}, and {why} disables requests "
            "to the Hub.",
            "Load it once without `local_files_only` and HF_HUB_OFFLINE, or check `cache_dir`.",
        )

    def _inside(self, name: str) -> str:
        return (PurePosixPath(self.options.subfolder) / name).as_posix()

    def _pin(self, commit: str | None) -> None:
        self.revision = commit or self.revision

    def _known_to_be_absent(self, inside: str) -> bool:
        """Whether the cache records that the commit, which never changes, lacks the file."""
        from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

        if self.options.force_download or not re.fullmatch("[0-9a-f]{40}", self.revision):
            return False
        found = try_to_load_from_cache(
            self.repository, inside, cache_dir=self.options.cache_dir, revision=self.revision
        )
        return found is _CACHED_NO_EXIST


def _download(state: _State, inside: str) -> Path:
    """Have `huggingface_hub` find or download a file, and retry after a broken connection."""
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
    """Whether the connection broke, as opposed to an answer of the Hub or a full disk."""
    return cause.errno is None and not type(cause).__module__.startswith("huggingface_hub")


def _meaning(cause: Exception, state: _State, name: str) -> LoadError:
    """The `LoadError` for an exception of `huggingface_hub` or of its network library."""
    from huggingface_hub import errors

    where = state.what(name)
    if isinstance(cause, errors.LocalEntryNotFoundError) and state.offline:
        return state.not_in_cache(name)
    if isinstance(cause, errors.HFValidationError):
        return SourceNotFound(
            f"{state.repository!r} is neither an existing folder nor a repository id: "
            f"{_one_line(cause)}.",
            "Check the path. A repository id is `name` or `owner/name`.",
        )
    # The library raises "not in the cache" also where the Hub failed; the reason is the cause.
    wrapped = isinstance(cause, (errors.LocalEntryNotFoundError, ValueError))
    if wrapped and isinstance(cause.__cause__, Exception):
        return _meaning(cause.__cause__, state, name)
    return _answered(cause, where)


def _answered(cause: Exception, where: str) -> LoadError:
    """The `LoadError` for the Hub's answer, or for the lack of one."""
    from huggingface_hub import errors

    if isinstance(cause, (errors.GatedRepoError, errors.LocalTokenNotFoundError)):
        return _refused(cause, where)
    if isinstance(cause, errors.RepositoryNotFoundError):
        return SourceNotFound(
            f"There is no {where}: no local folder and no visible repository has that name.",
            "Check the id. If the repository is private, pass `token` or run `hf auth login`.",
        )
    if isinstance(cause, errors.RevisionNotFoundError):
        return RevisionNotFound(
            f"There is no {where}: the repository has no such revision.",
            "Check `revision`: a branch, a tag, or a full commit id.",
        )
    if isinstance(cause, errors.HfHubHTTPError) and cause.response.status_code in (401, 403):
        return _refused(cause, where)
    return _failed(cause, where)


def _refused(cause: Exception, where: str) -> AccessRefused:
    return AccessRefused(
        f"Access to the {where} is denied: {_one_line(cause)}.",
        "Request access on the page of the repository, then pass `token` or run `hf auth login`.",
    )


def _failed(cause: Exception, where: str) -> DownloadFailed:
    return DownloadFailed(
        f"The {where} could not be downloaded: {_one_line(cause)}.",
        "Check the connection and the free disk space, and try again. Complete files are kept.",
    )


def _one_line(cause: Exception) -> str:
    """The class and the first line of an exception."""
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[0].rstrip('. ')}" if lines else type(cause).__name__
