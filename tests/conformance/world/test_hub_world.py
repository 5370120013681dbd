"""The world of a load by id: gone without a trace, and what it sees of a loader that does wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.utils import get_session
from transformers import modeling_utils
from transformers.utils import hub as stock_hub

from conformance.cases.case import HALF_FILE, Case, Failure, OnHub
from conformance.judge.session import judge
from conformance.observe.loaders import reference
from conformance.observe.observe import observe
from conformance.world import hub_world
from conformance_fixtures.hub.hub import Hub

WEIGHTS = "model.safetensors"
Load = Callable[..., Any]


def settings() -> dict[str, Any]:
    """All that the world exchanges, as it is now."""
    kept = {
        f"{module.__name__}.{name}": value
        for module in (constants, stock_hub, modeling_utils)
        for name, value in vars(module).items()
        if name.isupper() or name in ("_is_offline_mode", "_hf_api", "auto_conversion", "Process")
    }
    return {**kept, "environment": dict(os.environ)}


@pytest.mark.parametrize("world", [OnHub(), OnHub(cached=("*",), offline=True), OnHub(half=True)])
def test_the_world_is_gone_afterwards(world: OnHub, session: Any, case: Any) -> None:
    before = settings()
    trial = Case("res/trial", ("RES-14",), hub=world)
    with hub_world.sourced(trial, trial.source(), {}) as served:
        assert served.source == "org/tiny"
        assert constants.HF_HUB_OFFLINE is world.offline
        inside = constants.ENDPOINT
        cache = Path(constants.HF_HUB_CACHE)
        assert cache.is_dir()
    assert settings() == before
    assert inside != constants.ENDPOINT
    assert not cache.exists()


def test_a_load_that_fails_leaves_no_world_either(session: Any) -> None:
    before = settings()
    trial = Case("res/trial", ("RES-14",), hub=OnHub())
    with (
        pytest.raises(ValueError, match="failed"),
        hub_world.sourced(trial, trial.source(), {}) as served,
    ):
        hf_hub_download("org/tiny", "config.json")
        raise ValueError("failed")
    assert settings() == before
    assert served.requested()["config.json"] == (trial.source() / "config.json").stat().st_size


def test_a_connection_is_of_its_world_only(session: Any) -> None:
    """One that was made in offline mode stays offline."""
    trial = Case("res/trial", ("RES-14",), hub=OnHub())
    before = get_session()
    with hub_world.sourced(trial, trial.source(), {}):
        within = get_session()
        assert within is not before
    assert get_session() is not within


def test_what_is_asked_is_noted_file_by_file(session: Any) -> None:
    trial = Case("res/trial", ("RES-14",), "llama-f32-2", hub=OnHub(cached=("*-00001-*",)))
    asked = dict(observe(trial, reference).observation.asked)
    sizes = {path.name: path.stat().st_size for path in trial.source().iterdir()}
    sizes["model-00001-of-00002.safetensors"] = 0
    assert {name: asked.get(name, 0) for name in sizes} == sizes
    assert asked[WEIGHTS] == asked["generation_config.json"] == 0, "asked for, and not there"


def test_half_of_the_weights_are_in_the_cache_and_no_more(session: Any) -> None:
    trial = Case("res/trial", ("RES-18",), hub=OnHub(half=True))
    with hub_world.sourced(trial, trial.source(), {}):
        held = [path for path in Path(constants.HF_HUB_CACHE).rglob("*") if path.is_file()]
        assert [path.suffix for path in held] == [".incomplete"]
        assert held[0].read_bytes() == (trial.source() / WEIGHTS).read_bytes()[:HALF_FILE]


def test_no_user_of_this_machine_is_known(
    session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_user")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with Hub() as hub, hub_world.asking(hub, tmp_path):
        hub.publish("org/tiny", Case("res/trial", ()).source())
        hf_hub_download("org/tiny", "config.json")
        assert {request.token for request in hub.requests} == {None}
    assert os.environ["HF_TOKEN"] == "hf_of_the_user"


# Loaders that break one clause each.


def ignores_the_revision(cls: Any, source: Any, **options: Any) -> Any:
    options.pop("revision")
    return reference(cls, source, **options)


def loads_again(cls: Any, source: Any, **options: Any) -> Any:
    reference(cls, source, **options)
    return reference(cls, source, **options)


def downloads_again(cls: Any, source: Any, **options: Any) -> Any:
    return reference(cls, source, **options | {"force_download": True})


def never_downloads_again(cls: Any, source: Any, **options: Any) -> Any:
    return reference(cls, source, **options | {"force_download": False})


def asks_nevertheless(cls: Any, source: Any, **options: Any) -> Any:
    return reference(cls, source, **options | {"local_files_only": False})


def takes_main_instead(cls: Any, source: Any, **options: Any) -> Any:
    try:
        return reference(cls, source, **options)
    except OSError:
        return ignores_the_revision(cls, source, **options)


def tells_nothing(cls: Any, source: Any, **options: Any) -> Any:
    try:
        return reference(cls, source, **options)
    except OSError as error:
        raise RuntimeError("it did not work") from error


def takes_the_pickle_instead(cls: Any, source: Any, **options: Any) -> Any:
    try:
        return reference(cls, source, **options)
    except OSError:
        return reference(cls, source, **options, use_safetensors=False)


def takes_half(cls: Any, source: Any, **options: Any) -> Any:
    """As if what came before the cut had been the whole file: the last tensors are lost."""
    model, info = reference(cls, source, **options)
    model.model.norm.weight.data.zero_()
    return model, info


@pytest.mark.parametrize(
    ("identifier", "loader", "clause", "kinds"),
    [
        ("branch", ignores_the_revision, "RES-14", {"values"}),
        ("tag", ignores_the_revision, "RES-14", {"values"}),
        ("commit", ignores_the_revision, "RES-14", {"values"}),
        ("push-before-weights", loads_again, "RES-15", {"values"}),
        ("push-after-index", loads_again, "RES-15", {"values"}),
        ("push-before-generation-config", loads_again, "RES-15", {"generation-config"}),
        ("cached", downloads_again, "RES-16", {"state"}),
        ("cached-in-part", downloads_again, "RES-16", {"state"}),
        ("forced", never_downloads_again, "RES-16", {"state"}),
        ("only-cache", asks_nevertheless, "RES-16", {"state", "values"}),
        ("no-branch", takes_main_instead, "RES-17", {"accepted"}),
        ("no-repository", tells_nothing, "RES-17", {"exception", "message"}),
        ("offline-empty", tells_nothing, "RES-17", {"exception", "message"}),
        ("half-in-cache", takes_half, "RES-18", {"values"}),
        ("cut-always", tells_nothing, "RES-18", {"exception", "message"}),
        ("failing-weights", takes_the_pickle_instead, "RES-19", {"accepted"}),
        ("failing-index", takes_the_pickle_instead, "RES-19", {"accepted"}),
        ("failing-config", tells_nothing, "RES-19", {"exception", "message"}),
    ],
)
def test_a_loader_that_breaks_a_clause_is_caught_by_it(
    *,
    identifier: str,
    loader: Load,
    clause: str,
    kinds: set[str],
    judging: Callable[[Load], Any],
    case: Callable[[str], Case],
) -> None:
    judged = case(f"res/hub-{identifier}")
    assert judge(judged, judging(reference)).status == "agree"

    found = [d for d in judge(judged, judging(loader)).divergences if d.clause == clause]

    assert kinds <= {divergence.kind for divergence in found}


def test_a_failure_passes_after_as_many_times_as_the_case_says(judging: Any) -> None:
    failures = (Failure(f"/cdn/*/{WEIGHTS}", times=1),)
    trial = Case("res/trial", ("RES-19",), hub=OnHub(failures=failures))

    def tries_twice(cls: Any, source: Any, **options: Any) -> Any:
        with pytest.raises(OSError, match="503"):
            reference(cls, source, **options)
        return reference(cls, source, **options)

    assert observe(trial, tries_twice).observation.exception is None


def test_a_client_that_is_imported_already_stays_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub_world.stay_offline()
    assert constants.HF_HUB_OFFLINE

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # the user wants the Hub
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub_world.stay_offline()
    assert not constants.HF_HUB_OFFLINE
