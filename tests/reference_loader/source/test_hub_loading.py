"""Loading by id: the real client and a small hub (RES-14 to RES-19).

Every load by id is held against the load from the folder that was published.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, hf_hub_download
from torch import nn
from transformers import AutoConfig

from conformance_fixtures import write
from conformance_fixtures.hub.hub import Hub
from reference_loader import LoadError, from_pretrained, plan
from reference_loader.source import hub

REPOSITORY = Path(write.__file__).parents[1]
CONFIG, WEIGHTS, GENERATION = "config.json", "model.safetensors", "generation_config.json"
INDEX = "model.safetensors.index.json"
TOKEN = "hf_of_the_test"
CUT_AT = 20_000  # within the weights, and beyond every other file
ALWAYS = 1000

Checkpoint = Callable[..., Path]
Same = Callable[[nn.Module, nn.Module], None]


@pytest.fixture
def same_models(same_models: Same) -> Same:
    """As everywhere, but that a model is named after its source."""

    def but_for_the_name(left: nn.Module, right: nn.Module) -> None:
        right.config.name_or_path = left.config.name_or_path
        same_models(left, right)

    return but_for_the_name


def sent(world: Hub) -> list[str]:
    """The names of the files whose content was sent, in order."""
    requests = world.asked("*", "GET")
    return [each.path.rpartition("/")[2] for each in requests if each.status in (200, 206)]


def refused(source: str, **options: Any) -> LoadError:
    """The error of a load, and of its plan; ours and an OSError, and with a way out."""
    errors = [refused_once(source, load, **options) for load in (plan, from_pretrained)]
    assert str(errors[0]) == str(errors[1])
    return errors[0]


def refused_once(
    source: str, load: Callable[..., Any] = from_pretrained, **options: Any
) -> LoadError:
    with pytest.raises(LoadError) as raised:
        load(source, **options)
    assert isinstance(raised.value, OSError)
    assert raised.value.hint
    return raised.value


def names(error: LoadError, *parts: str) -> None:
    for part in parts:
        assert part in error.message, f"{part} in {error.message}"


def whole_weights(cache: Path) -> list[Path]:
    """What passes for weights in the cache: under their own name, or complete as a blob."""
    blobs = [blob for blob in cache.rglob("blobs/*") if not blob.suffix]
    return [*cache.rglob("*.safetensors"), *(b for b in blobs if b.stat().st_size >= CUT_AT)]


# What is loaded.


@pytest.mark.parametrize("recipe", ["llama-f32", "llama-bf16-2", "llama-generation"])
def test_a_load_by_id_is_the_load_from_the_folder(
    world: Hub, checkpoint: Checkpoint, same_models: Same, recipe: str
) -> None:
    folder = checkpoint(recipe)
    world.publish("org/tiny", folder)
    loaded, info = from_pretrained("org/tiny", output_loading_info=True)
    same_models(loaded, from_pretrained(folder))
    assert loaded.config.name_or_path == loaded.name_or_path == "org/tiny"
    assert not any(info.values())


def test_a_bare_name_is_an_id_too(world: Hub, checkpoint: Checkpoint, same_models: Same) -> None:
    world.publish("tiny", checkpoint("llama-f32"))
    same_models(from_pretrained("tiny"), from_pretrained(checkpoint("llama-f32")))


def test_a_folder_of_that_name_comes_first(
    world: Hub, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish("org/tiny", checkpoint("llama-f32"))
    shutil.copytree(checkpoint("llama-f16"), tmp_path / "here" / "org" / "tiny")
    monkeypatch.chdir(tmp_path / "here")
    assert str(from_pretrained("org/tiny").dtype) == "torch.float16"
    assert refused("org/tiny", subfolder="none").code == "source-not-found"
    assert not world.requests


def test_only_what_is_read_is_downloaded(
    world: Hub, checkpoint: Checkpoint, own: Checkpoint
) -> None:
    folder = own("llama-generation", "bin-beside-safetensors")
    for extra in ("README.md", "model.fp16.safetensors", "tokenizer.json", INDEX):
        (folder / extra).write_text("{}")
    world.publish("org/much", folder)
    from_pretrained("org/much")
    assert sent(world) == [CONFIG, GENERATION, WEIGHTS]


def test_only_the_shards_that_the_index_names(world: Hub, own: Checkpoint) -> None:
    folder = own("llama-f32-3")
    shutil.copy(folder / "model-00001-of-00003.safetensors", folder / "model-00009.safetensors")
    world.publish("org/shards", folder)
    from_pretrained("org/shards")
    shards = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    assert sent(world) == [CONFIG, INDEX, *shards]


@pytest.mark.parametrize("recipe", ["llama-f32", "llama-f32-2"])
def test_subfolder(world: Hub, own: Checkpoint, same_models: Same, recipe: str) -> None:
    folder = own(recipe, "subfolder")
    world.publish("org/inner", folder)
    loaded = from_pretrained("org/inner", subfolder="inner")
    same_models(loaded, from_pretrained(folder, subfolder="inner"))
    assert all("/inner/" in each.path for each in world.requests)
    names(refused("org/inner", subfolder="other"), "'other/config.json'", "org/inner", "'main'")


@pytest.mark.parametrize("recipe", ["llama-f32", "llama-f32-2"])
def test_variant(world: Hub, own: Checkpoint, same_models: Same, recipe: str) -> None:
    folder = own(recipe, "variant-fp16")
    world.publish("org/variant", folder)
    loaded = from_pretrained("org/variant", variant="fp16")
    same_models(loaded, from_pretrained(folder, variant="fp16"))
    assert all(".fp16" in name for name in sent(world)[1:])
    error = refused("org/variant", variant="fp8")
    assert error.code == "weights-not-found"
    names(error, "model.fp8.safetensors", "org/variant", "'main'")


def test_the_weights_that_the_config_names(world: Hub, own: Checkpoint, same_models: Same) -> None:
    folder = own("llama-f32", transformers_weights="mine.safetensors")
    (folder / WEIGHTS).rename(folder / "mine.safetensors")
    (folder / WEIGHTS).write_text("another")
    world.publish("org/named", folder)
    same_models(from_pretrained("org/named"), from_pretrained(folder))
    assert sent(world) == [CONFIG, "mine.safetensors"]


def test_a_config_passed_needs_none_there(
    world: Hub, own: Checkpoint, checkpoint: Checkpoint, same_models: Same
) -> None:
    config = AutoConfig.from_pretrained(checkpoint("llama-f32"))
    folder = own("llama-f32", "no-config")
    commit = world.publish("org/bare", folder)
    loaded = from_pretrained("org/bare", config=config)
    same_models(loaded, from_pretrained(folder, config=config))
    assert world.asked(f"*/{commit}/{WEIGHTS}"), "the answer for the config told the commit"
    error = refused("org/bare")
    assert error.code == "config-not-found"
    names(error, CONFIG, "org/bare", "'main'")


# Which state.


def test_revisions(world: Hub, checkpoint: Checkpoint) -> None:
    """A branch, a tag, a commit, None."""
    old = world.publish("org/tiny", checkpoint("llama-f32"), tag="v1")
    world.publish("org/tiny", checkpoint("llama-f16"))
    world.publish("org/tiny", checkpoint("llama-bf16"), revision="next")
    found = {
        revision: str(from_pretrained("org/tiny", revision=revision).dtype)
        for revision in ("main", None, "v1", old, "next")
    }
    assert found == {
        "main": "torch.float16",
        None: "torch.float16",
        "v1": "torch.float32",
        old: "torch.float32",
        "next": "torch.bfloat16",
    }


@pytest.mark.parametrize("recipe", ["llama-bf16", "llama-bf16-2"])
def test_a_push_in_between_mixes_nothing(
    world: Hub,
    checkpoint: Checkpoint,
    same_models: Same,
    monkeypatch: pytest.MonkeyPatch,
    recipe: str,
) -> None:
    """Another state is pushed after every single file; all are of the one the config came from."""
    old, new = checkpoint(recipe), checkpoint("llama-f32-3")
    world.publish("org/tiny", old)

    def then_push(*args: Any, **options: Any) -> str:
        path = hf_hub_download(*args, **options)
        world.publish("org/tiny", new)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", then_push)
    same_models(from_pretrained("org/tiny"), from_pretrained(old))
    same_models(from_pretrained("org/tiny"), from_pretrained(new))


def test_a_config_of_a_folder_names_the_weights_too(
    world: Hub, own: Checkpoint, same_models: Same
) -> None:
    folder = own("llama-f32", transformers_weights="mine.safetensors")
    published = own("llama-f32")
    (published / WEIGHTS).rename(published / "mine.safetensors")
    world.publish("org/named", published)
    loaded = from_pretrained("org/named", config=folder)
    same_models(loaded, from_pretrained(published, config=folder))
    assert sent(world) == [CONFIG, "mine.safetensors"]


@pytest.mark.parametrize("options", [{}, {"subfolder": "inner"}])
def test_a_config_given_by_an_id_of_its_own(
    world: Hub, own: Checkpoint, same_models: Same, options: dict[str, str]
) -> None:
    """It comes from that repository, and the weights from the other."""
    faults = ["subfolder"] if options else []
    world.publish("org/config", own("llama-f32", "no-weights", *faults))
    folder = own("llama-f32", "no-config", *faults)
    world.publish("org/bare", folder)
    config = AutoConfig.from_pretrained(own("llama-f32"))
    loaded = from_pretrained("org/bare", config="org/config", **options)
    same_models(loaded, from_pretrained(folder, config=config, **options))
    assert sent(world) == [CONFIG, WEIGHTS]
    assert loaded.name_or_path == "org/bare"


def test_a_config_that_names_the_weights_of_another_repository(
    world: Hub, own: Checkpoint, same_models: Same
) -> None:
    world.publish("org/config", own("llama-f32", transformers_weights="mine.safetensors"))
    folder = own("llama-f32")
    (folder / WEIGHTS).rename(folder / "mine.safetensors")
    world.publish("org/bare", folder)
    loaded = from_pretrained("org/bare", config="org/config")
    assert loaded.config.transformers_weights == "mine.safetensors"
    assert sent(world)[-1] == "mine.safetensors"


def test_a_config_of_a_repository_that_has_none(world: Hub, own: Checkpoint) -> None:
    world.publish("org/config", own("llama-f32", "no-config"))
    world.publish("org/tiny", own("llama-f32"))
    error = refused("org/tiny", config="org/config")
    assert error.code == "config-not-found"
    names(error, CONFIG, "'org/config'", "'main'")
    error = refused("org/tiny", config="org/none")
    assert error.code == "source-not-found"
    names(error, "'org/none'")


# The cache.


@pytest.mark.parametrize("recipe", ["llama-f32", "llama-f32-2"])
def test_what_the_cache_holds_is_not_sent_again(
    world: Hub, checkpoint: Checkpoint, recipe: str
) -> None:
    commit = world.publish("org/tiny", checkpoint(recipe))
    from_pretrained("org/tiny")
    world.requests.clear()
    from_pretrained("org/tiny")
    asked = [(each.method, each.path) for each in world.requests]
    assert asked == [("HEAD", "/org/tiny/resolve/main/config.json")]
    world.requests.clear()
    from_pretrained("org/tiny", revision=commit)
    assert not world.requests, "of a commit all is known"


def test_the_cache_is_that_of_the_library(world: Hub, checkpoint: Checkpoint) -> None:
    commit = world.publish("org/tiny", checkpoint("llama-f32"))
    hf_hub_download("org/tiny", WEIGHTS)
    world.requests.clear()
    folder = Path(constants.HF_HUB_CACHE) / "models--org--tiny" / "snapshots" / commit
    assert plan("org/tiny").files == (folder / WEIGHTS,)
    assert sent(world) == [CONFIG]


def test_cache_dir(world: Hub, checkpoint: Checkpoint, tmp_path: Path) -> None:
    world.publish("org/tiny", checkpoint("llama-f32"))
    from_pretrained("org/tiny", cache_dir=tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "models--org--tiny").is_dir()
    assert not (tmp_path / "cache").exists()
    from_pretrained("org/tiny", cache_dir=str(tmp_path / "elsewhere"), local_files_only=True)


def test_force_download(world: Hub, checkpoint: Checkpoint, same_models: Same) -> None:
    world.publish("org/tiny", checkpoint("llama-f32"))
    from_pretrained("org/tiny")
    path = plan("org/tiny").files[0]
    damaged = bytearray(path.read_bytes())
    damaged[-4:] = b"\1\1\1\1"
    path.resolve().write_bytes(damaged)
    world.requests.clear()
    loaded = from_pretrained("org/tiny", force_download=True)
    same_models(loaded, from_pretrained(checkpoint("llama-f32")))
    assert sent(world) == [CONFIG, WEIGHTS]


def test_eight_threads_share_a_download(
    world: Hub, checkpoint: Checkpoint, same_models: Same
) -> None:
    world.publish("org/tiny", checkpoint("llama-f32-2"))
    from_pretrained(checkpoint("llama-f32-2"))  # imports are not to be done by eight threads
    with ThreadPoolExecutor(8) as pool:
        plans = list(pool.map(plan, ["org/tiny"] * 8))
    assert len({each.files for each in plans}) == 1
    assert sorted(sent(world)) == sorted({*sent(world)}), "each file once"
    same_models(from_pretrained("org/tiny"), from_pretrained(checkpoint("llama-f32-2")))


# Offline.


@pytest.fixture(params=["local_files_only", "HF_HUB_OFFLINE"])
def offline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`offline(load, source, **options)`: the load, by either way of not asking."""

    def run(load: Callable[..., Any], source: str, **options: Any) -> Any:
        if request.param == "local_files_only":
            return load(source, local_files_only=True, **options)
        with monkeypatch.context() as patch:
            patch.setattr(constants, "HF_HUB_OFFLINE", True)
            return load(source, **options)

    return run


@pytest.mark.parametrize("recipe", ["llama-f32", "llama-f32-2"])
def test_offline_loads_what_the_cache_holds(
    world: Hub, checkpoint: Checkpoint, same_models: Same, offline: Callable[..., Any], recipe: str
) -> None:
    world.publish("org/tiny", checkpoint(recipe))
    from_pretrained("org/tiny")
    world.publish("org/tiny", checkpoint("llama-f16"))
    world.requests.clear()
    same_models(offline(from_pretrained, "org/tiny"), from_pretrained(checkpoint(recipe)))
    assert not world.requests


def test_offline_and_not_in_the_cache(
    world: Hub, checkpoint: Checkpoint, offline: Callable[..., Any]
) -> None:
    world.publish("org/tiny", checkpoint("llama-f32-2"))
    error = offline(refused, "org/tiny")
    assert error.code == "not-in-cache"
    names(error, CONFIG, "org/tiny", "'main'")
    assert "local_files_only" in error.hint
    hf_hub_download("org/tiny", CONFIG)
    names(offline(refused, "org/tiny"), WEIGHTS, INDEX, "pytorch_model.bin")
    hf_hub_download("org/tiny", INDEX)
    world.requests.clear()
    names(offline(refused, "org/tiny"), "model-00001-of-00002.safetensors")
    names(offline(refused, "org/tiny", revision="v1"), CONFIG, "'v1'")
    names(offline(refused, "org/tiny", force_download=True), "force_download")
    assert not world.requests


def test_the_cache_stands_in_for_a_hub_that_fails(
    world: Hub, checkpoint: Checkpoint, same_models: Same
) -> None:
    world.publish("org/tiny", checkpoint("llama-f32-2"))
    from_pretrained("org/tiny")
    world.fail("*", times=ALWAYS)
    same_models(from_pretrained("org/tiny"), from_pretrained(checkpoint("llama-f32-2")))


# Failures.


@pytest.mark.parametrize("source", ["/no/where", "./org/tiny", "../tiny", "~/tiny", "a/b/c"])
def test_a_path_that_is_not_there_is_no_question_to_the_hub(world: Hub, source: str) -> None:
    assert refused(source).code == "source-not-found"
    assert not world.requests


@pytest.mark.parametrize("source", ["org/-tiny-", "or..g/tiny", "org/tiny.git", "org/ti ny", "o:x"])
def test_an_id_that_is_none(world: Hub, source: str) -> None:
    for revision in ("main", "0" * 40):
        error = refused(source, revision=revision)
        assert error.code == "source-not-found"
        names(error, repr(source))
    assert not world.requests


def test_no_such_repository(world: Hub) -> None:
    error = refused("org/none")
    assert error.code == "source-not-found"
    names(error, "'org/none'", CONFIG, "'main'")


def test_no_such_revision(world: Hub, checkpoint: Checkpoint) -> None:
    world.publish("org/tiny", checkpoint("llama-f32"))
    for revision in ("v9", "0" * 40):
        error = refused("org/tiny", revision=revision)
        assert error.code == "revision-not-found"
        names(error, "'org/tiny'", CONFIG, repr(revision))


def test_no_weights(world: Hub, own: Checkpoint) -> None:
    world.publish("org/none", own("llama-f32", "no-weights"))
    error = refused("org/none")
    assert error.code == "weights-not-found"
    names(error, "'org/none'", "'main'", WEIGHTS, INDEX, "pytorch_model.bin")


def test_no_such_shard(world: Hub, own: Checkpoint) -> None:
    world.publish("org/two", own("llama-f32-2", "absent-shard"))
    error = refused("org/two")
    assert error.code == "shard-not-found"
    names(error, "'org/two'", "'main'", INDEX, "model-00002-of-00002.safetensors")


def test_an_index_that_leads_outside(world: Hub, own: Checkpoint) -> None:
    """IDX-9: refused before anything outside is asked for."""
    world.publish("org/outside", own("llama-f32-2", "index-leads-outside"))
    with pytest.raises(LoadError, match=r"\.\./outside") as raised:
        from_pretrained("org/outside")
    assert raised.value.code == "unsafe-path"
    assert sent(world) == [CONFIG, INDEX]


@pytest.mark.parametrize(
    ("gated", "token", "code"),
    [
        (False, False, "source-not-found"),  # whether it exists is a secret
        (False, "hf_wrong", "source-not-found"),
        (True, False, "access-refused"),
        (True, "hf_wrong", "access-refused"),
    ],
)
def test_without_the_token(
    world: Hub, checkpoint: Checkpoint, *, gated: bool, token: bool | str, code: str
) -> None:
    world.publish("org/closed", checkpoint("llama-f32"))
    world.protect("org/closed", TOKEN, gated=gated)
    error = refused("org/closed", token=token)
    assert error.code == code
    names(error, "'org/closed'", CONFIG, "'main'")
    assert "token" in error.hint
    assert "hf_wrong" not in str(error)


@pytest.mark.parametrize("gated", [False, True])
def test_with_the_token(world: Hub, checkpoint: Checkpoint, same_models: Same, gated: bool) -> None:
    world.publish("org/closed", checkpoint("llama-f32-2"))
    world.protect("org/closed", TOKEN, gated=gated)
    loaded = from_pretrained("org/closed", token=TOKEN)
    same_models(loaded, from_pretrained(checkpoint("llama-f32-2")))
    assert not any(each.token for each in world.asked("/cdn/*"))


def test_a_token_that_must_be_there(
    world: Hub, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world.publish("org/tiny", checkpoint("llama-f32"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    assert refused("org/tiny", token=True).code == "access-refused"


@pytest.mark.parametrize("status", [401, 403, 500, 503])
@pytest.mark.parametrize("force", [False, True])
def test_a_hub_that_fails(world: Hub, checkpoint: Checkpoint, status: int, force: bool) -> None:
    world.publish("org/tiny", checkpoint("llama-f32"))
    world.fail("/org/tiny/*", times=ALWAYS, status=status)
    error = refused("org/tiny", force_download=force)
    assert error.code == ("access-refused" if status < 500 else "download-failed")
    names(error, "'org/tiny'", CONFIG, "'main'")
    names(error, str(status))


def test_weights_that_fail_are_not_passed_over(world: Hub, own: Checkpoint) -> None:
    """RES-3: the pickle beside them is not what was asked for."""
    world.publish("org/both", own("llama-f32", "bin-beside-safetensors"))
    world.fail(f"/org/both/*/{WEIGHTS}", times=ALWAYS)
    error = refused("org/both")
    assert error.code == "download-failed"
    names(error, WEIGHTS, "503", "'org/both'", "'main'")
    assert sent(world) == [CONFIG]


def test_a_passing_failure_is_outlived(world: Hub, checkpoint: Checkpoint) -> None:
    """By the client where it is asked for a file's facts, and else by the next load."""
    world.publish("org/tiny", checkpoint("llama-f32"))
    world.fail(f"*/{CONFIG}", times=2)
    world.fail("/cdn/*")
    names(refused_once("org/tiny"), WEIGHTS, "503")
    from_pretrained("org/tiny")
    assert sent(world) == [CONFIG, WEIGHTS]


def test_nobody_there(world: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(world.url, "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    error = refused("org/tiny")
    assert error.code == "download-failed"
    names(error, "ConnectError", "'org/tiny'", CONFIG, "'main'")


@pytest.mark.parametrize("recipe", ["llama-f32", "llama-f32-2"])
def test_a_cut_download_is_made_good(
    world: Hub, checkpoint: Checkpoint, same_models: Same, recipe: str
) -> None:
    world.publish("org/tiny", checkpoint(recipe))
    world.cut("/cdn/*", after_bytes=CUT_AT, times=2)
    same_models(from_pretrained("org/tiny"), from_pretrained(checkpoint(recipe)))


def test_a_download_that_is_always_cut_leaves_no_half_file(
    world: Hub, checkpoint: Checkpoint, same_models: Same, tmp_path: Path
) -> None:
    world.publish("org/tiny", checkpoint("llama-f32"))
    world.cut("/cdn/*", after_bytes=CUT_AT, times=ALWAYS)
    error = refused("org/tiny")
    assert error.code == "download-failed"
    names(error, WEIGHTS, "'org/tiny'", "'main'")
    assert not whole_weights(tmp_path / "cache")
    assert refused("org/tiny", local_files_only=True).code == "not-in-cache"


def test_an_older_client_that_gives_up_is_asked_again(
    world: Hub, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As 0.36 does after a cut: a plain OSError, and what came so far is kept for the next try."""
    world.publish("org/tiny", checkpoint("llama-f32"))
    gave_up: list[str] = []

    def giving_up(repository: str, name: str, **options: Any) -> str:
        if name == WEIGHTS and len(gave_up) < hub.ATTEMPTS - 1:
            gave_up.append(name)
            raise OSError("Connection broken: IncompleteRead")
        return str(hf_hub_download(repository, name, **options))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", giving_up)
    from_pretrained("org/tiny")
    assert len(gave_up) == hub.ATTEMPTS - 1


def test_a_full_disk_is_not_tried_again(
    world: Hub, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    def full(repository: str, name: str, **options: Any) -> str:
        tries.append(name)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(LoadError, match="No space left"):
        plan("org/tiny")
    assert tries == [CONFIG]


def test_a_failed_load_leaves_the_process_as_it_was(
    world: Hub, checkpoint: Checkpoint, unchanged: Callable[..., Any], tmp_path: Path
) -> None:
    """STA-2."""
    world.publish("org/tiny", checkpoint("llama-f32"))
    refused("org/tiny", revision="none")  # what happens once in a process is over
    world.cut("/cdn/*", after_bytes=CUT_AT, times=ALWAYS)
    with unchanged(checkpoint("llama-f32")):
        refused("org/tiny")


# Around it.


def test_nothing_is_imported_before_it_is_needed() -> None:
    program = (
        "import sys, reference_loader; print({'huggingface_hub', 'transformers'} & {*sys.modules})"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "set()", ran.stdout


# What a user's process does: its environment names the hub, and stderr is no terminal.
LOADS = """
import json, sys
from pathlib import Path
import torch
from huggingface_hub import constants
from transformers import AutoModelForCausalLM
import reference_loader

def commit(model):
    return getattr(model.config, "_commit_hash", None)

ours, theirs = json.loads(sys.argv[1])
for source, options in json.loads(sys.argv[2]):
    wanted = options | {"output_loading_info": True}
    left, noted = reference_loader.from_pretrained(
        source, model_class=AutoModelForCausalLM, cache_dir=ours, **wanted
    )
    right, said = AutoModelForCausalLM.from_pretrained(source, cache_dir=theirs, **wanted)
    one, other = left.state_dict(), right.state_dict()
    same = one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )
    facts = {
        "tensors": same,
        "class": type(left) is type(right),
        "name": left.name_or_path == right.name_or_path == source,
        "config": left.config.to_dict() == right.config.to_dict(),
        "commit": commit(left) == commit(right),
        "generation": left.generation_config.to_dict() == right.generation_config.to_dict(),
        "info": {k: list(v) for k, v in noted.items()} == {k: list(v) for k, v in said.items()},
    }
    print(json.dumps([name for name, agrees in facts.items() if not agrees]))
"""


def test_a_load_by_id_is_the_load_of_stock(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """And the progress bar does not show where nobody looks."""
    with Hub() as world:
        world.publish("org/tiny", checkpoint("llama-generation"), tag="v1")
        commit = world.publish("org/tiny", checkpoint("llama-bf16-2"))
        world.publish("org/inner", checkpoint("llama-f32-2", "subfolder"))
        world.publish("org/variant", checkpoint("llama-f16", "variant-fp16"))
        world.publish("org/closed", checkpoint("llama-f32"))
        world.protect("org/closed", TOKEN)
        loads: list[tuple[str, dict[str, object]]] = [
            ("org/tiny", {}),
            ("org/tiny", {"revision": "v1"}),
            ("org/tiny", {"revision": commit, "local_files_only": True}),
            ("org/inner", {"subfolder": "inner"}),
            ("org/variant", {"variant": "fp16"}),
            ("org/closed", {"token": TOKEN}),
        ]
        caches = [str(tmp_path / "ours"), str(tmp_path / "theirs")]
        ran = subprocess.run(
            [sys.executable, "-c", LOADS, json.dumps(caches), json.dumps(loads)],
            env={**os.environ, **world.environment(tmp_path / "home")},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert ran.stdout.split("\n")[:-1] == ["[]"] * len(loads), ran.stdout + ran.stderr
    assert ".safetensors" not in ran.stderr, "no bar of a download"
