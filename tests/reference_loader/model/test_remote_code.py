"""FMT-22, FMT-23: code of a checkpoint runs only for a caller who trusts it, and nothing asks."""

from __future__ import annotations

import builtins
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    CONFIG_MAPPING,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    dynamic_module_utils,
)

from conformance.world.process import surrounded
from conformance_fixtures.faults.code import MARK
from conformance_fixtures.hub.hub import Hub
from conformance_fixtures.write import materialise
from reference_loader import from_pretrained, plan
from reference_loader.errors import BadConfig, LoadError, RemoteCodeRefused
from reference_loader.model.remote_code import never_asking, origin

CAUSAL, IMAGES = AutoModelForCausalLM, AutoModelForImageClassification


@pytest.fixture(autouse=True)
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], bool]]:
    """Whether code of a checkpoint ran; asking fails the test."""
    mark = tmp_path / "ran"
    monkeypatch.setenv(MARK, str(mark))
    monkeypatch.setenv("A_CHECKPOINT_RAN_CODE", "")

    def asked(prompt: object = "") -> str:
        raise AssertionError(f"asked: {prompt}")

    monkeypatch.setattr(builtins, "input", asked)
    with surrounded(("own-module-cache",)):
        yield mark.exists


@pytest.mark.parametrize("trust", [{}, {"trust_remote_code": False}, {"trust_remote_code": "yes"}])
@pytest.mark.parametrize(
    "needed",
    [
        ("code-config-and-model", CAUSAL, ("config.json", "CodedConfig", "configuration_coded.py")),
        ("code-config-and-model", None, ("config.json", "CodedConfig")),
        ("code-config-elsewhere", CAUSAL, ("'org/elsewhere'", "CodedConfig")),
        ("code-model", IMAGES, ("config.json", "CodedForCausalLM", "modeling_coded.py")),
        ("code-kernel", None, ("'org/elsewhere'",)),
    ],
)
def test_code_that_a_load_needs_is_refused(
    trust: Any, needed: tuple[str, Any, tuple[str, ...]], checkpoint: Any, ran: Any
) -> None:
    fault, model_class, names = needed
    folder = checkpoint("llama-f32", fault)
    for function in (from_pretrained, plan):
        with pytest.raises(RemoteCodeRefused) as caught:
            function(folder, model_class=model_class, **trust)
        assert isinstance(caught.value, ValueError)
        assert [name for name in names if name not in caught.value.message] == []
        assert "trust_remote_code=True" in caught.value.hint
    assert not ran()


@pytest.mark.parametrize("model_class", [None, CAUSAL])
@pytest.mark.parametrize("fault", ["code-beside-known-type", "code-generate"])
def test_the_class_of_the_library_needs_no_code(
    fault: str, model_class: Any, checkpoint: Any, ran: Any
) -> None:
    model = from_pretrained(checkpoint("llama-f32", fault), model_class=model_class)
    assert type(model) is type(from_pretrained(checkpoint("llama-f32")))
    assert type(model).__module__.startswith("transformers.") and "generate" not in vars(model)
    assert not ran()


def test_a_kernel_that_the_caller_names_replaces_that_of_the_config(checkpoint: Any) -> None:
    folder = checkpoint("llama-f32", "code-kernel")
    model = from_pretrained(folder, attn_implementation="eager")
    assert model.config._attn_implementation == "eager"


def test_a_part_of_a_model_may_not_ask_either(ran: Any) -> None:
    """The constructor makes its parts with Auto classes, which stock lets ask."""
    folder = materialise("llama-f32", ["code-part"])
    for function in (from_pretrained, plan):
        with pytest.raises(RemoteCodeRefused, match="modeling_coded"):
            function(folder)
        # Its constructor passes no trust on: there is no way to run the code, and nothing asks.
        with pytest.raises(BadConfig):
            function(folder, trust_remote_code=True)
    assert not ran()


@pytest.mark.parametrize("model_class", [None, CAUSAL])
@pytest.mark.parametrize(
    ("fault", "name"),
    [("code-config-and-model", "CodedForCausalLM"), ("code-beside-known-type", "LlamaForCausalLM")],
)
def test_trusted_code_makes_the_model(
    fault: str, name: str, model_class: Any, checkpoint: Any, ran: Any
) -> None:
    known = set(CONFIG_MAPPING), len(AutoModelForCausalLM._model_mapping)
    folder = checkpoint("llama-f32", fault)
    model = from_pretrained(folder, model_class=model_class, trust_remote_code=True)
    assert type(model).__name__ == name and type(model.config).__name__ == "CodedConfig"
    assert type(model).__module__.startswith("transformers_modules.")
    assert ran()
    stored = dict(from_pretrained(checkpoint("llama-f32")).named_parameters())
    assert all((stored[key] == value).all() for key, value in model.named_parameters())
    # A later load that trusts nothing finds no class of it.
    assert (set(CONFIG_MAPPING), len(AutoModelForCausalLM._model_mapping)) == known
    assert plan(folder, model_class=model_class, trust_remote_code=True).model_class is type(model)


def test_trusted_code_under_another_auto_class_is_the_one_it_names(
    checkpoint: Any, ran: Any
) -> None:
    folder = checkpoint("llama-f32", "code-model")
    model = from_pretrained(folder, model_class=IMAGES, trust_remote_code=True)
    assert type(model).__name__ == "CodedForCausalLM"
    with pytest.raises(LoadError):
        from_pretrained(folder, model_class=AutoModel, trust_remote_code=True, config="no/such")


def test_trusted_generate_replaces_that_of_the_class(checkpoint: Any, ran: Any) -> None:
    import torch

    folder = checkpoint("llama-f32", "code-generate")
    model = from_pretrained(folder, trust_remote_code=True)
    assert model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=5).shape[1] == 5
    assert ran()


def test_the_code_lies_at_the_top_of_the_checkpoint(own: Any, ran: Any) -> None:
    folder = own("llama-f32", "code-config-and-model", "subfolder")
    for path in (folder / "inner").glob("*.py"):
        path.rename(folder / path.name)
    model = from_pretrained(folder, model_class=CAUSAL, subfolder="inner", trust_remote_code=True)
    assert type(model).__name__ == "CodedForCausalLM"


@pytest.mark.parametrize(
    "content", ["raise SystemError('broken')\n", "import no_such_package\n", "CodedConfig = 3\n"]
)
def test_trusted_code_that_does_not_work_is_named(content: str, own: Any) -> None:
    folder = own("llama-f32", "code-config-and-model")
    (folder / "configuration_coded.py").write_text(content)
    with pytest.raises(BadConfig, match=r"configuration_coded\.CodedConfig"):
        from_pretrained(folder, model_class=CAUSAL, trust_remote_code=True)


def test_code_that_is_not_there_is_named(own: Any) -> None:
    folder = own("llama-f32", "code-config-and-model")
    (folder / "configuration_coded.py").unlink()
    with pytest.raises(BadConfig, match=r"configuration_coded\.CodedConfig"):
        from_pretrained(folder, model_class=CAUSAL, trust_remote_code=True)


@pytest.mark.parametrize("auto_map", [7, "AutoConfig", ["AutoConfig"], {"AutoConfig": 3}, {}])
@pytest.mark.parametrize("trust", [False, True])
def test_an_auto_map_of_another_form_runs_nothing(
    auto_map: Any, trust: bool, own: Any, ran: Any
) -> None:
    folder = own("llama-f32", "code-config-and-model", auto_map=auto_map)
    with pytest.raises(LoadError):
        from_pretrained(folder, model_class=CAUSAL, trust_remote_code=trust)
    assert not ran()


def test_a_repository_brings_its_code_and_names_that_of_others(world: Hub, ran: Any) -> None:
    world.publish("org/coded", materialise("llama-f32", ["code-config-and-model"]))
    world.publish("org/elsewhere", materialise("llama-f32", ["code-config-and-model"]))
    world.publish("org/naming", materialise("llama-f32", ["code-config-elsewhere"]))
    for repository in ("org/coded", "org/naming"):
        with pytest.raises(RemoteCodeRefused):
            from_pretrained(repository, model_class=CAUSAL)
        assert not any(".py" in request.path for request in world.requests)
    assert not ran()
    model = from_pretrained("org/coded", model_class=CAUSAL, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules.org.coded.")


def test_where_the_code_is(tmp_path: Path) -> None:
    assert origin(tmp_path / "a" / "b", "b") == (str(tmp_path / "a"), {})
    assert origin(tmp_path / "a" / "b", "c") == (str(tmp_path / "a" / "b"), {})
    snapshot = tmp_path / "models--org--a--b" / "snapshots" / "123"
    assert origin(snapshot / "inner", "inner") == (
        "org/a--b",
        {"revision": "123", "cache_dir": str(tmp_path)},
    )


def test_nothing_asks_while_any_thread_loads() -> None:
    before = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    inside, leave = threading.Event(), threading.Event()

    def load() -> None:
        with never_asking(dynamic_module_utils):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=load)
    with never_asking(dynamic_module_utils):
        thread.start()
        assert inside.wait(10)
    assert dynamic_module_utils.TIME_OUT_REMOTE_CODE == 0
    leave.set()
    thread.join()
    assert before == dynamic_module_utils.TIME_OUT_REMOTE_CODE != 0


def test_a_caller_with_an_alarm_keeps_it(checkpoint: Any) -> None:
    import signal

    handler = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        signal.alarm(100)
        with pytest.raises(RemoteCodeRefused):
            from_pretrained(checkpoint("llama-f32", "code-config-and-model"), model_class=CAUSAL)
        assert signal.alarm(0) > 90
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert "transformers_modules" not in sys.modules
