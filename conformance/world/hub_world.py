"""The Hub of a load by repository id: a local server, and a client that sends requests to it alone.

Client and loader are those of this process: what they keep of the real Hub (its address, offline
mode, open connections) is replaced, and restored afterwards. Releases keep it in different places.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from conformance.cases.case import CHUNK, CONFIG_REPOSITORY, HALF_FILE, Case, OnHub
from conformance.world.hostile_filesystem import copied
from conformance_fixtures.hub.hub import Hub
from conformance_fixtures.hub.pages import id_of, read_commit
from conformance_fixtures.write import materialise


@dataclass(frozen=True)
class Served:
    """A checkpoint as the loader gets it.

    Attributes:
        source: what the loader is given.
        hub: the Hub that serves it; None for a folder.
    """

    source: str | None
    hub: Hub | None = None

    def requested(self) -> dict[str, int]:
        """What the load requested of the Hub: file, or another path, to bytes of content sent."""
        sent: dict[str, int] = {}
        for request in self.hub.asked("*") if self.hub else ():
            name = _file_requested(request.path)
            content = request.sent if request.status in (200, 206) else 0
            sent[name] = sent.get(name, 0) + content
        return sent


# Where the client and transformers keep whether they may ask; of these, each release has some.
OFFLINE = (
    ("huggingface_hub.constants", "HF_HUB_OFFLINE"),
    ("transformers.utils.hub", "_is_offline_mode"),
)


@contextmanager
def sourced(case: Case, source: Path, options: Mapping[str, Any]) -> Iterator[Served]:
    """Within, the case's checkpoint can be loaded; a case of the Hub has its server meanwhile.

    Args:
        case: the case.
        source: its checkpoint.
        options: of the load; the cached files are put in `cache_dir`, if that is among them.
    """
    if case.hub is None:
        with copied(source) if case.copied else nullcontext(source) as folder:
            yield Served(case.given_source(folder))
        return
    small_chunks = patch("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", CHUNK)
    with TemporaryDirectory(prefix="conformance-hub-") as folder, Hub() as hub, small_chunks:
        default = Path(folder)
        _publish_on_hub(hub, case.hub, source)
        _fill_cache(hub, case.hub, source, default, Path(options.get("cache_dir", default)))
        _disturb_hub(hub, case.hub)
        hub.requests.clear()
        with asking(hub, default, offline=case.hub.offline):
            yield Served(case.given_source(source), hub)


@contextmanager
def asking(hub: Hub, cache: Path, offline: bool = False) -> Iterator[None]:
    """Within, the client of this process sends requests to `hub` only, and retries without waiting.

    Its downloads go to `cache`; it sends no token of the user's and uses no proxy.
    """
    with ExitStack() as exchanged:
        wanted = _client_settings(hub, str(cache), offline)
        # Import all first: a module that is imported later would keep the replaced settings.
        for module in [importlib.import_module(place) for place in wanted]:
            for name, value in wanted[module.__name__].items():
                if hasattr(module, name):
                    exchanged.enter_context(patch.object(module, name, value))
        exchanged.enter_context(_hub_environment())
        exchanged.enter_context(_fresh_connections())
        yield


def stay_offline() -> None:
    """Let no load ask the real Hub, unless the user has set HF_HUB_OFFLINE otherwise.

    The client reads the variable when it is imported, which may have happened already.
    """
    if os.environ.setdefault("HF_HUB_OFFLINE", "1").upper() not in ("1", "ON", "YES", "TRUE"):
        return
    for place, name in OFFLINE:
        if hasattr(sys.modules.get(place), name):
            setattr(sys.modules[place], name, True)


def commit_id(source: Path) -> str:
    """The id on the Hub of the commit that holds the files of the folder."""
    return id_of(read_commit(source))


def _client_settings(hub: Hub, cache: str, offline: bool) -> dict[str, dict[str, Any]]:
    """Module to the settings of the Hub's client; each release has some of these names."""
    template = {"HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}"}
    client = {
        "ENDPOINT": hub.url,
        "HF_HUB_CACHE": cache,
        "HF_HUB_OFFLINE": offline,
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_HUB_DISABLE_PROGRESS_BARS": True,
        "HF_TOKEN_PATH": f"{cache}/token",
    }
    stock = {
        "HUGGINGFACE_CO_RESOLVE_ENDPOINT": hub.url,
        "TRANSFORMERS_CACHE": cache,
        "_is_offline_mode": offline,
        "_hf_api": None,  # made on first use, for the endpoint of that moment
    }
    # Stock would ask a remote service to convert a pickled checkpoint, in the background.
    conversion = {"auto_conversion": _no_conversion, "Process": _NoProcess}
    return {
        "huggingface_hub.constants": client | template,
        "huggingface_hub.file_download": template,
        "transformers.utils.hub": stock,
        "transformers.modeling_utils": conversion,
        "time": {"sleep": lambda seconds: None},
    }


def _no_conversion(*args: Any, revision: str = "main", **options: Any) -> tuple[None, str, bool]:
    """Instead of asking the Hub to convert pickles to safetensors: nothing was converted."""
    return None, revision, False


class _NoProcess:
    def __init__(self, **options: Any) -> None:
        """Accept what the process that asks the Hub for a conversion accepts."""

    def start(self) -> None:
        """Do nothing: no process asks the Hub for a conversion."""


@contextmanager
def _hub_environment() -> Iterator[None]:
    """No proxy, no token of the user's, no conversion on the Hub; other variables stay."""
    wanted = {
        **dict.fromkeys(("NO_PROXY", "no_proxy"), "*"),
        **dict.fromkeys(("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"), ""),
        "DISABLE_SAFETENSORS_CONVERSION": "true",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _fresh_connections() -> Iterator[None]:
    """Within, use no connection to a Hub from before, and afterwards none from within."""
    _close_connections()
    try:
        yield
    finally:
        _close_connections()


def _close_connections() -> None:
    """Close what the Hub's client keeps open for its next request; before 1.0 it forgets it."""
    from huggingface_hub.utils import _http

    if hasattr(_http, "close_session"):
        _http.close_session()
    else:
        _http.get_session().close()
        _http.reset_sessions()


def _publish_on_hub(hub: Hub, world: OnHub, source: Path) -> None:
    """Publish the case's checkpoint on the Hub, and the config's repository if it has one."""
    hub.publish(world.repository, source, world.branch, world.tag)
    if world.config:
        hub.publish(CONFIG_REPOSITORY, materialise(world.config))


def _fill_cache(hub: Hub, world: OnHub, source: Path, default: Path, cache: Path) -> None:
    """Fill the Hub's cache before the load, with whole files as the client downloads them."""
    from huggingface_hub import snapshot_download

    if world.cached:
        with asking(hub, default):
            snapshot_download(
                world.repository,
                revision=world.branch,
                cache_dir=cache,
                allow_patterns=world.cached,
            )
    if world.half:
        content = (source / "model.safetensors").read_bytes()
        blobs = cache / f"models--{world.repository.replace('/', '--')}" / "blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        (blobs / f"{hashlib.sha256(content).hexdigest()}.incomplete").write_bytes(
            content[:HALF_FILE]
        )


def _disturb_hub(hub: Hub, world: OnHub) -> None:
    """Arrange what changes on the Hub once the cache was filled, before and during the load."""
    if world.newer:
        hub.publish(world.repository, materialise(world.newer))
    if world.token is not None:
        hub.protect(world.repository, world.token, gated=world.gated)
    if world.push is not None:
        folder = materialise(world.push.recipe)
        hub.publish_later(
            world.repository, folder, before=world.push.before, after=world.push.after
        )
    for failure in world.failures:
        if failure.cut is None:
            hub.fail(failure.path, failure.times, failure.status)
        else:
            hub.cut(failure.path, failure.cut, failure.times)


def _file_requested(path: str) -> str:
    """The Hub's file: `/org/tiny/resolve/main/F` and `/cdn/org/tiny/<sha256>/F` are one."""
    found = re.search(r"/resolve/[^/]+/(.+)|/cdn/.+/[0-9a-f]{64}/(.+)", path)
    return (found[1] or found[2]) if found else path
