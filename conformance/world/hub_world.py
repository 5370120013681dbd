"""The world of a load by id: a Hub that lasts as long as the load, and a client that asks no other.

Client and loader are those of this process: what they keep of the real Hub (where it is, whether it
may be asked, open connections) is exchanged, and put back. Releases keep it in different places.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from conformance.cases.case import CHUNK, CONFIG_REPOSITORY, HALF_FILE, Case, OnHub
from conformance.world.adversity import copied
from conformance_fixtures.hub.hub import Hub
from conformance_fixtures.hub.pages import id_of, read_commit
from conformance_fixtures.write import materialise


@contextmanager
def sourced(
    case: Case, source: Path, options: Mapping[str, Any], asked: dict[str, int]
) -> Iterator[str | None]:
    """What the loader is given as the source; for a case of the Hub, that Hub is there meanwhile.

    Args:
        case: the case.
        source: its checkpoint.
        options: of the load; what the cache holds is in `cache_dir`, if that is among them.
        asked: takes what the Hub is asked for during the load: file to bytes of content sent.
    """
    if case.hub is None:
        with copied(source) if case.copied else nullcontext(source) as folder:
            yield case.given_source(folder)
        return
    small_chunks = patch("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", CHUNK)
    with TemporaryDirectory(prefix="conformance-hub-") as folder, Hub() as hub, small_chunks:
        default = Path(folder)
        _publish(hub, case.hub, source)
        _fill(hub, case.hub, source, default, Path(options.get("cache_dir", default)))
        _disturb(hub, case.hub)
        hub.requests.clear()
        try:
            with asking(hub, default, offline=case.hub.offline):
                yield case.given_source(source)
        finally:
            asked.update(_sent(hub))


@contextmanager
def asking(hub: Hub, cache: Path, offline: bool = False) -> Iterator[None]:
    """Within, the client of this process asks `hub` and no other, and does not wait to ask again.

    Its downloads lie in `cache`; no token of the user's is sent, no proxy asked.
    """
    with ExitStack() as exchanged:
        wanted = _settings(hub, str(cache), offline)
        # All are imported first: one that is imported later takes the settings of now for its own.
        for module in [importlib.import_module(place) for place in wanted]:
            for name, value in wanted[module.__name__].items():
                if hasattr(module, name):
                    exchanged.enter_context(patch.object(module, name, value))
        exchanged.enter_context(_environment())
        exchanged.enter_context(_connections())
        yield


def commit_id(source: Path) -> str:
    """The id that the commit with the files of the folder has on the Hub."""
    return id_of(read_commit(source))


def _settings(hub: Hub, cache: str, offline: bool) -> dict[str, dict[str, Any]]:
    """Module to what it keeps; of these names, each release of each package has some."""
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
        "_hf_api": None,  # made when it is needed, for the endpoint of that time
    }
    # Stock would have a pickled checkpoint converted by a service outside, in the background.
    conversion = {"auto_conversion": _no_conversion, "Process": _NoProcess}
    return {
        "huggingface_hub.constants": client | template,
        "huggingface_hub.file_download": template,
        "transformers.utils.hub": stock,
        "transformers.modeling_utils": conversion,
        "time": {"sleep": lambda seconds: None},
    }


def _no_conversion(*args: Any, revision: str = "main", **options: Any) -> tuple[None, str, bool]:
    return None, revision, False


class _NoProcess:
    def __init__(self, **options: Any) -> None:
        """A process that is not started."""

    def start(self) -> None:
        """Do nothing."""


@contextmanager
def _environment() -> Iterator[None]:
    """No proxy, no token of the user's, no conversion; all other variables are let be."""
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
def _connections() -> Iterator[None]:
    """No connection from before is used, nor one from within afterwards: each has its settings."""
    from huggingface_hub.utils import _http

    forget = getattr(_http, "close_session", None) or _http.reset_sessions
    forget()
    try:
        yield
    finally:
        forget()


def _publish(hub: Hub, world: OnHub, source: Path) -> None:
    hub.publish(world.repository, source, world.branch, world.tag)
    if world.config:
        hub.publish(CONFIG_REPOSITORY, materialise(world.config))


def _fill(hub: Hub, world: OnHub, source: Path, default: Path, cache: Path) -> None:
    """What the cache holds before the load: whole files as the client's own command gets them."""
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


def _disturb(hub: Hub, world: OnHub) -> None:
    """What happens on the Hub before the load that the cache knows nothing of, and during it."""
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


def _sent(hub: Hub) -> dict[str, int]:
    """File to bytes of its content sent; what is no file, by its path."""
    sent: dict[str, int] = {}
    for request in hub.asked("*"):
        name = _file(request.path)
        content = request.sent if request.status in (200, 206) else 0
        sent[name] = sent.get(name, 0) + content
    return sent


def _file(path: str) -> str:
    """`/org/tiny/resolve/main/config.json` and `/cdn/org/tiny/<sha256>/config.json` are one."""
    found = re.search(r"/resolve/[^/]+/(.+)|/cdn/.+/[0-9a-f]{64}/(.+)", path)
    return (found[1] or found[2]) if found else path
