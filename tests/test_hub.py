"""The small hub, asked by the real client: right bytes, the client's own errors, nothing half."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from fixtures import write
from fixtures.hub import Hub
from fixtures.write import materialise

REPOSITORY = Path(write.__file__).parents[1]
CONFIG, WEIGHTS = "config.json", "model.safetensors"
TOKEN = "hf_of_the_test"
CUT_AT = 20_000  # within the weights, and beyond every other file

Download = Callable[..., Path]


@pytest.fixture
def hub(world: Hub) -> Hub:
    return world


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materialise("llama-f32", root=tmp_path_factory.mktemp("fixtures"))


@pytest.fixture
def download(hub: Hub, tmp_path: Path) -> Download:
    """`hf_hub_download` from the hub into the cache of the test."""

    def fetch(repo_id: str, name: str, **options: Any) -> Path:
        given = {"endpoint": hub.url, "cache_dir": tmp_path / "cache", "token": False, **options}
        return Path(hf_hub_download(repo_id, name, **given))

    return fetch


def asked(hub: Hub) -> list[tuple[str, str, int]]:
    """Method, last part of the path, and status of every request."""
    return [(each.method, each.path.rpartition("/")[2], each.status) for each in hub.requests]


def weights_under_their_name(cache: Path) -> list[Path]:
    return [*cache.rglob(WEIGHTS), *(path for path in cache.rglob("blobs/*") if not path.suffix)]


# Files.


def test_a_small_file_comes_directly(hub: Hub, tiny: Path, download: Download) -> None:
    hub.publish("org/tiny", tiny)
    assert download("org/tiny", CONFIG).read_bytes() == (tiny / CONFIG).read_bytes()
    assert asked(hub) == [("HEAD", CONFIG, 200), ("GET", CONFIG, 200)]


def test_a_large_file_comes_from_another_host(hub: Hub, tiny: Path, download: Download) -> None:
    hub.publish("org/tiny", tiny)
    assert download("org/tiny", WEIGHTS).read_bytes() == (tiny / WEIGHTS).read_bytes()
    assert asked(hub) == [("HEAD", WEIGHTS, 302), ("GET", WEIGHTS, 200)]
    assert hub.requests[1].path.startswith("/cdn/org/tiny/")
    assert hub.requests[1].sent == (tiny / WEIGHTS).stat().st_size
    assert urlsplit(hub.cdn_url).hostname != urlsplit(hub.url).hostname


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_what_the_cache_holds_is_not_sent_again(
    hub: Hub, tiny: Path, download: Download, name: str
) -> None:
    hub.publish("org/tiny", tiny)
    first = download("org/tiny", name)
    hub.requests.clear()
    assert download("org/tiny", name) == first
    assert [request.method for request in hub.requests] == ["HEAD"]


def test_a_file_is_kept_under_its_etag(hub: Hub, tiny: Path, download: Download) -> None:
    hub.publish("org/tiny", tiny)
    config, weights = download("org/tiny", CONFIG), download("org/tiny", WEIGHTS)
    hashed = subprocess.run(
        ["git", "hash-object", "--stdin"],
        input=config.read_bytes(),
        capture_output=True,
        check=True,
    )
    assert config.resolve().name == hashed.stdout.decode().strip()
    assert weights.resolve().name == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_a_name_that_must_be_quoted(hub: Hub, tmp_path: Path, download: Download) -> None:
    (tmp_path / "odd" / "a folder").mkdir(parents=True)
    for name in ("a folder/100% ü.json", "a folder/100% ü.bin"):
        (tmp_path / "odd" / name).write_bytes(b"{}")
    hub.publish("org/odd", tmp_path / "odd", revision="refs/pr/1")
    for name in ("a folder/100% ü.json", "a folder/100% ü.bin"):
        assert download("org/odd", name, revision="refs/pr/1").read_bytes() == b"{}"


# Revisions.


def test_a_commit_is_named_by_branch_tag_and_id(hub: Hub, tiny: Path, download: Download) -> None:
    old = hub.publish("org/tiny", tiny, tag="v1")
    new = hub.publish("org/tiny", materialise("llama-f16", root=tiny.parents[1]))
    other = hub.publish("org/tiny", materialise("llama-bf16", root=tiny.parents[1]), "next")
    assert len({old, new, other}) == 3
    named = {"main": new, "v1": old, "next": other, old: old, new: new, other: other}
    for revision, commit_id in named.items():
        assert download("org/tiny", WEIGHTS, revision=revision).parent.name == commit_id
    assert HfApi(hub.url, token=False).list_repo_refs("org/tiny").tags[0].target_commit == old


def test_a_commit_id_follows_from_the_content(hub: Hub, tiny: Path) -> None:
    with Hub() as another:
        assert another.publish("else/where", tiny) == hub.publish("org/tiny", tiny)
    assert hub.publish("org/tiny", tiny, revision="next") == hub.publish("org/tiny", tiny)


def test_a_published_folder_may_change(hub: Hub, tmp_path: Path, download: Download) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / CONFIG).write_text("{}")
    hub.publish("bare-name", tmp_path / "own")
    (tmp_path / "own" / CONFIG).write_text("changed")
    assert download("bare-name", CONFIG).read_text() == "{}"


def test_a_snapshot_is_the_folder(hub: Hub, tmp_path: Path, download: Download) -> None:
    source = materialise("llama-f32-3", root=tmp_path / "fixtures")
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "note.txt").write_text("")
    commit_id = hub.publish("org/tiny", source)
    snapshot = Path(snapshot_download("org/tiny", endpoint=hub.url, token=False))
    assert snapshot.name == commit_id
    assert write.digest(snapshot) == write.digest(source)
    tree = HfApi(hub.url, token=False).list_repo_tree("org/tiny", "deep")
    assert [entry.path for entry in tree] == ["deep/er"]


def test_a_push_comes_before_an_answer_or_after_a_content_and_once(
    hub: Hub, tiny: Path, download: Download
) -> None:
    other = materialise("llama-f16", root=tiny.parents[1])
    old = hub.publish("org/tiny", tiny)
    hub.publish_later("org/tiny", other, after=f"*/{CONFIG}")
    assert download("org/tiny", CONFIG).parent.name == old
    new = download("org/tiny", WEIGHTS).parent.name
    assert new != old
    hub.publish_later("org/tiny", tiny, before=f"*/{WEIGHTS}")
    assert download("org/tiny", CONFIG).parent.name == new
    assert download("org/tiny", WEIGHTS).parent.name == old
    hub.publish("org/tiny", other)
    assert download("org/tiny", WEIGHTS).parent.name == new


# Faults.


def test_a_cut_download_is_begun_again(hub: Hub, tiny: Path, download: Download) -> None:
    hub.publish("org/tiny", tiny)
    hub.cut("/cdn/*", after_bytes=CUT_AT)
    assert download("org/tiny", WEIGHTS).read_bytes() == (tiny / WEIGHTS).read_bytes()
    size = (tiny / WEIGHTS).stat().st_size
    assert [(each.range, each.sent) for each in hub.asked("/cdn/*")] == [
        (None, CUT_AT),
        (None, size),
    ]


def test_a_cut_download_is_resumed(
    hub: Hub, tiny: Path, download: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client resumes behind the last whole chunk, which has ten megabytes by default.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.publish("org/tiny", tiny)
    hub.cut("/cdn/*", after_bytes=CUT_AT + 1, times=2)
    assert download("org/tiny", WEIGHTS).read_bytes() == (tiny / WEIGHTS).read_bytes()
    assert [(each.status, each.range) for each in hub.asked("/cdn/*")] == [
        (200, None),
        (206, f"bytes={CUT_AT}-"),
        (206, f"bytes={2 * CUT_AT}-"),
    ]


def test_a_download_that_is_always_cut_leaves_no_file(
    hub: Hub, tiny: Path, download: Download, tmp_path: Path
) -> None:
    hub.publish("org/tiny", tiny)
    hub.cut("/cdn/*", after_bytes=CUT_AT, times=1000)
    with pytest.raises(Exception, match=r"peer closed|IncompleteRead|Consistency check"):
        download("org/tiny", WEIGHTS)
    assert not weights_under_their_name(tmp_path / "cache")


def test_a_cut_waits_for_a_body_that_it_can_cut(hub: Hub, tiny: Path, download: Download) -> None:
    hub.publish("org/tiny", tiny)
    hub.cut("*", after_bytes=CUT_AT)
    download("org/tiny", CONFIG)
    assert hub.requests[-1].sent == (tiny / CONFIG).stat().st_size
    download("org/tiny", WEIGHTS)
    assert hub.asked("/cdn/*")[0].sent == CUT_AT


def test_a_passing_failure_is_outlived(hub: Hub, tiny: Path, download: Download) -> None:
    hub.publish("org/tiny", tiny)
    hub.fail(f"*/{CONFIG}", times=2)
    assert download("org/tiny", CONFIG).is_file()
    assert [request.status for request in hub.requests] == [503, 503, 200, 200]


def test_a_lasting_failure_is_told(
    hub: Hub, tiny: Path, download: Download, tmp_path: Path
) -> None:
    hub.publish("org/tiny", tiny)
    hub.fail("/org/tiny/*", times=1000)
    with pytest.raises(LocalEntryNotFoundError) as caught:
        download("org/tiny", WEIGHTS)
    assert isinstance(caught.value.__cause__, HfHubHTTPError)
    assert caught.value.__cause__.response.status_code == 503


def test_a_failure_of_the_other_host_is_told(
    hub: Hub, tiny: Path, download: Download, tmp_path: Path
) -> None:
    hub.publish("org/tiny", tiny)
    hub.fail("/cdn/*", times=1000, method="GET")
    with pytest.raises(HfHubHTTPError, match="503"):
        download("org/tiny", WEIGHTS)
    assert not weights_under_their_name(tmp_path / "cache")


@pytest.mark.parametrize(
    ("repo_id", "name", "revision", "expected"),
    [
        ("org/none", CONFIG, "main", RepositoryNotFoundError),
        ("org/tiny", CONFIG, "none", RevisionNotFoundError),
        ("org/tiny", CONFIG, "0" * 40, RevisionNotFoundError),
        ("org/tiny", "none.json", "main", EntryNotFoundError),
    ],
)
def test_what_is_not_there(
    *,
    hub: Hub,
    tiny: Path,
    download: Download,
    repo_id: str,
    name: str,
    revision: str,
    expected: type[Exception],
) -> None:
    hub.publish("org/tiny", tiny)
    with pytest.raises(expected) as caught:
        download(repo_id, name, revision=revision)
    assert type(caught.value).__name__.removeprefix("Remote") == expected.__name__
    assert hub.requests[-1].status == 404


def test_offline_is_silent(hub: Hub, tiny: Path, download: Download) -> None:
    hub.publish("org/tiny", tiny)
    held = download("org/tiny", CONFIG)
    hub.requests.clear()
    assert download("org/tiny", CONFIG, local_files_only=True) == held
    with pytest.raises(LocalEntryNotFoundError):
        download("org/tiny", WEIGHTS, local_files_only=True)
    assert not hub.requests


# Tokens.


@pytest.mark.parametrize(
    ("gated", "token", "status", "expected"),
    [
        (False, False, 401, RepositoryNotFoundError),
        (False, "hf_wrong", 401, RepositoryNotFoundError),
        (True, False, 401, GatedRepoError),
        (True, "hf_wrong", 403, GatedRepoError),
    ],
)
def test_without_the_token_nothing_comes(
    *,
    hub: Hub,
    tiny: Path,
    download: Download,
    gated: bool,
    token: str | bool,
    status: int,
    expected: type[Exception],
) -> None:
    hub.publish("org/tiny", tiny)
    hub.protect("org/tiny", TOKEN, gated=gated)
    with pytest.raises(expected) as caught:
        download("org/tiny", WEIGHTS, token=token)
    assert type(caught.value) is expected
    assert {request.status for request in hub.requests} == {status}


@pytest.mark.parametrize("gated", [False, True])
def test_with_the_token_all_comes_and_the_other_host_is_not_told(
    hub: Hub, tiny: Path, download: Download, gated: bool
) -> None:
    hub.publish("org/tiny", tiny)
    hub.protect("org/tiny", TOKEN, gated=gated)
    assert download("org/tiny", WEIGHTS, token=TOKEN).is_file()
    assert [request.token for request in hub.requests] == [TOKEN, None]


# HTTP.


@pytest.fixture
def get(hub: Hub, tiny: Path) -> Iterator[Callable[..., HTTPResponse]]:
    """Ask, on one kept connection, for the config of a published repository."""
    hub.publish("org/tiny", tiny)
    connection = HTTPConnection(urlsplit(hub.url).netloc, timeout=5)

    def ask(method: str, **headers: str) -> HTTPResponse:
        connection.request(method, f"/org/tiny/resolve/main/{CONFIG}", headers=headers)
        return connection.getresponse()

    yield ask
    connection.close()


@pytest.mark.parametrize(
    ("asked_for", "part"),
    [
        ("bytes=0-", slice(0, None)),
        ("bytes=10-19", slice(10, 20)),
        ("bytes=10-99999", slice(10, None)),
        ("bytes=-7", slice(-7, None)),
    ],
)
def test_a_range(get: Callable[..., HTTPResponse], tiny: Path, asked_for: str, part: slice) -> None:
    content = (tiny / CONFIG).read_bytes()
    response = get("GET", Range=asked_for)
    assert (response.status, response.read()) == (206, content[part])
    first = len(content[: part.start]) if part.start >= 0 else len(content) + part.start
    last = first + len(content[part]) - 1
    assert response.headers["Content-Range"] == f"bytes {first}-{last}/{len(content)}"


def test_a_range_behind_the_end(get: Callable[..., HTTPResponse], tiny: Path) -> None:
    size = (tiny / CONFIG).stat().st_size
    response = get("GET", Range=f"bytes={size}-")
    assert (response.status, response.read()) == (416, b"")
    assert response.headers["Content-Range"] == f"bytes */{size}"


def test_a_head_has_the_headers_and_no_body(
    get: Callable[..., HTTPResponse], hub: Hub, tiny: Path
) -> None:
    response = get("HEAD")
    assert response.read() == b""
    assert response.headers["Content-Length"] == str((tiny / CONFIG).stat().st_size)
    assert response.headers["Accept-Ranges"] == "bytes"
    assert get("GET").headers["ETag"] == response.headers["ETag"]
    assert hub.requests[0].sent == 0


def test_a_hub_leaves_nothing_behind(tiny: Path) -> None:
    before = threading.enumerate()
    with Hub() as hub:
        places = [urlsplit(url) for url in (hub.url, hub.cdn_url)]
        assert [place.hostname for place in places] == ["127.0.0.1", "localhost"]
        # Kept open by the client: closing must not wait for it.
        kept = HTTPConnection(places[0].netloc, timeout=5)
        kept.request("GET", "/api/models/org/none")
        assert kept.getresponse().read()
    kept.close()
    assert threading.enumerate() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((places[0].hostname, places[0].port), timeout=5)


# Stock transformers.

LOADS = """
import json, sys, torch
from transformers import AutoModelForCausalLM

def state(source, options):
    return AutoModelForCausalLM.from_pretrained(source, **options).state_dict()

def same(one, other):
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )

for folder, repo_id, options in json.loads(sys.argv[1]):
    print("same" if same(state(folder, {}), state(repo_id, options)) else "different")
"""


def test_stock_loads_by_id_what_it_loads_from_the_folder(
    hub: Hub, tiny: Path, tmp_path: Path
) -> None:
    sharded = materialise("llama-bf16-2", root=tmp_path / "fixtures")
    commit_id = hub.publish("org/tiny", tiny)
    hub.publish("org/tiny", sharded, revision="next", tag="v2")
    hub.publish("org/cut", sharded)
    hub.publish("org/private", tiny)
    hub.protect("org/private", TOKEN)
    hub.cut("/cdn/org/cut/*", after_bytes=CUT_AT)
    loads: list[tuple[str, str, dict[str, object]]] = [
        (str(tiny), "org/tiny", {}),
        (str(tiny), "org/tiny", {"revision": commit_id}),
        (str(sharded), "org/tiny", {"revision": "v2"}),
        (str(tiny), "org/tiny", {"local_files_only": True}),
        (str(sharded), "org/cut", {}),
        (str(tiny), "org/private", {"token": TOKEN}),
    ]
    ran = subprocess.run(
        [sys.executable, "-c", LOADS, json.dumps(loads)],
        env={**os.environ, **hub.environment(tmp_path / "home")},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.stdout.split() == ["same"] * len(loads), ran.stderr
    assert len(hub.asked(f"/cdn/org/tiny/*/{WEIGHTS}", "GET")) == 1, "held in the cache afterwards"
    assert len(hub.asked("/cdn/org/cut/*", "GET")) == 3, "two shards, one of them twice"
    assert not any(request.token for request in hub.asked("/cdn/*"))
    assert (tmp_path / "home" / "hub" / "models--org--tiny").is_dir()
