"""The options: all of the contract's, written out, none ignored in silence. CFG-3, DTY-4."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_overloads

import pytest
import torch

import reference_loader
import reference_loader as api
from reference_loader import from_pretrained, plan
from reference_loader import options as options_module
from reference_loader.errors import BadOptions, UnsupportedOption
from reference_loader.options import AUTO, REFUSED, WITHOUT_EFFECT, Options

# The contract of DESIGN.md, section 4, in its order.
CONTRACT = {
    "model_class": None,
    "config": None,
    "state_dict": None,
    "dtype": "auto",
    "device_map": None,
    "max_memory": None,
    "offload_folder": None,
    "offload_buffers": False,
    "subfolder": "",
    "variant": None,
    "revision": "main",
    "cache_dir": None,
    "token": None,
    "local_files_only": False,
    "force_download": False,
    "use_safetensors": None,
    "weights_only": True,
    "ignore_mismatched_sizes": False,
    "key_mapping": None,
    "attn_implementation": None,
    "quantization_config": None,
    "gguf_file": None,
    "tp_plan": None,
    "distributed_config": None,
    "trust_remote_code": False,
    "code_revision": None,
    "output_loading_info": False,
    "strict": False,
}
PUBLIC = [from_pretrained, plan]
BOTH = pytest.mark.parametrize("function", PUBLIC)


def shown(function: Callable[..., Any]) -> dict[str, tuple[str, Any]]:
    """The keyword-only parameters: name to annotation and default, in order."""
    return {
        name: (str(parameter.annotation), parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def disagreements(function: Callable[..., Any]) -> list[str]:
    """Where the signature of `function` and the fields of `Options` are not the same."""
    written = shown(function)
    known = {f.name: (str(f.type), f.default) for f in fields(Options) if f.name != "overrides"}
    order = [] if list(written) == list(known) else ["the order"]
    return order + sorted(n for n in written.keys() | known if written.get(n) != known.get(n))


@BOTH
def test_the_signature_is_the_contract(function: Any) -> None:
    parameters = list(inspect.signature(function).parameters.values())
    kinds = [parameter.kind for parameter in (*parameters[:2], parameters[-1])]
    assert [parameter.name for parameter in parameters[:2]] == ["source", "model_args"]
    assert kinds == [
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    ]
    defaults = {name: default for name, (_, default) in shown(function).items()}
    assert list({n: d for n, d in defaults.items() if n in CONTRACT}.items()) == list(
        CONTRACT.items()
    )
    assert defaults.keys() - CONTRACT.keys() == {"generation_config"}


@BOTH
def test_the_signature_is_written_out(function: Any) -> None:
    """An IDE and mypy read the source, so what it says must be what `inspect` says."""
    assert not hasattr(inspect.unwrap(function), "__signature__")
    tree = ast.parse(Path(api.__file__).read_text("utf-8"))
    last = [node for node in tree.body if getattr(node, "name", "") == function.__name__][-1]
    assert isinstance(last, ast.FunctionDef)
    assert [argument.arg for argument in last.args.kwonlyargs] == list(shown(function))
    # The docstring, the options, the call: nothing is decided here.
    assert [type(statement) for statement in last.body] == [ast.Expr, ast.Assign, ast.Return]


@BOTH
def test_signature_and_options_agree(function: Any) -> None:
    """Names, annotations, defaults and order."""
    assert disagreements(function) == []


def test_a_signature_that_does_not_agree_is_noticed() -> None:
    def function(*, model_class: type | None = None, dtype: str = "auto", new: int = 0) -> None: ...

    found = disagreements(function)
    assert found[0] == "the order"
    assert {"dtype", "new", "revision"} <= set(found)
    assert "model_class" not in found


def test_each_overload_is_the_signature_but_for_the_loading_info() -> None:
    whole = inspect.signature(from_pretrained).parameters
    overloads = get_overloads(from_pretrained)
    assert len(overloads) == 2
    for each in overloads:
        # The body of an overload has the default `AUTO` too, so parameters compare whole.
        differing = [n for n, p in inspect.signature(each).parameters.items() if p != whole[n]]
        assert list(inspect.signature(each).parameters) == list(whole)
        assert differing == ["output_loading_info"]


@BOTH
def test_each_option_reaches_the_load(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each under its own name: no option is dropped or taken for another on the way."""
    seen: list[Options] = []
    monkeypatch.setattr(options_module, "_refuse_wrong_type", lambda *_: None)
    for name in ("load_model", "plan_load"):
        monkeypatch.setattr(api, name, lambda _, __, options: seen.append(options))
    for name in CONTRACT.keys() - REFUSED | {"generation_config"}:
        marker = object()
        function("folder", **{name: marker})
        given = {f.name: getattr(seen[-1], f.name) for f in fields(Options)}
        expected = {f.name: getattr(Options(), f.name) for f in fields(Options)}
        assert given == expected | {name: marker}
    function("folder", 1, 2, hidden_size=3)
    assert seen[-1] == Options(overrides={"hidden_size": 3})


SNIPPET = """\
import torch
from reference_loader import from_pretrained, plan

reveal_type(from_pretrained("folder"))
reveal_type(from_pretrained("folder", output_loading_info=True))
reveal_type(plan("folder", dtype="float16"))
from_pretrained("folder", dtype=torch.float16, device_map={"": 0}, max_memory={0: "1GB"}, layers=2)
from_pretrained("folder", "an argument of the model class", key_mapping={"a": "b"})
from_pretrained("folder", dtype=16)
from_pretrained("folder", device_map=1.5)
from_pretrained("folder", key_mapping=["a"])
from_pretrained(16)
from_pretrained()
plan("folder", strict="yes")
plan("folder", subfolder=None)
"""
WRONG = {9: "dtype", 10: "device_map", 11: "key_mapping", 12: "", 13: "", 14: "strict"}
WRONG |= {15: "subfolder"}


@pytest.mark.slow
def test_mypy_sees_the_options(tmp_path: Path) -> None:
    """A right use passes, a wrong type is an error, and the loading info decides the result."""
    api_of_mypy = pytest.importorskip("mypy.api")
    snippet = tmp_path / "snippet.py"
    snippet.write_text(SNIPPET, encoding="utf-8")
    config = Path(__file__).parents[2] / "pyproject.toml"
    arguments = ["--config-file", str(config), "--cache-dir", str(tmp_path / "cache"), str(snippet)]
    printed, _, _ = api_of_mypy.run(arguments)
    lines = [line.removeprefix(f"{snippet}:") for line in printed.splitlines()]
    revealed = [line.split('"')[1] for line in lines if "Revealed type" in line]
    assert [name.replace("builtins.", "") for name in revealed] == [
        "torch.nn.modules.module.Module",
        "tuple[torch.nn.modules.module.Module, dict[str, Any]]",
        "reference_loader.plan.plan.LoadPlan",
    ]
    wrong = {int(line.split(":")[0]) for line in lines if " error: " in line}
    assert wrong == set(WRONG), printed


ROOT = Path(reference_loader.__file__).parent
WITH_EXAMPLES = sorted(
    ".".join(("reference_loader", *path.relative_to(ROOT).with_suffix("").parts))
    for path in ROOT.glob("**/*.py")
    if ">>> " in path.read_text("utf-8")
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_docstrings_run(name: str, checkpoint: Any) -> None:
    """`folder` is the checkpoint that the examples speak of."""
    extra = {"folder": checkpoint("llama-bf16-2")}
    found = doctest.DocTestFinder().find(_module(name), extraglobs=extra)
    examples = [test for test in found if test.examples]
    assert examples
    for test in examples:
        runner, printed = doctest.DocTestRunner(verbose=False), list[str]()
        runner.run(test, out=printed.append)
        assert runner.failures == 0, "".join(printed)


def test_the_public_functions_have_examples() -> None:
    finder = doctest.DocTestFinder()
    have = {test.name for test in finder.find(api) if test.examples}
    assert have == {"reference_loader.from_pretrained", "reference_loader.plan"}


def _module(name: str) -> Any:
    return importlib.import_module(name)


@pytest.mark.parametrize("function", [from_pretrained, plan, Options.of])
def test_public_docstrings_have_their_parts(function: Any) -> None:
    text = inspect.getdoc(function) or ""
    assert [part for part in ("Args:", "Raises:") if part not in text] == []


def test_each_option_is_documented_with_a_clause() -> None:
    """Or said not to be supported, or to have no effect, or the Hub client's own."""
    text = inspect.getdoc(from_pretrained) or ""
    entries = dict(_entries(text))
    assert entries.keys() == {"source", "*model_args", *shown(from_pretrained), "**kwargs"}
    plain = {"*model_args", "cache_dir", "token"}
    for name, entry in entries.items():
        said = re.search(r"[A-Z]{3}-\d+|not supported|without effect", entry)
        assert said or name in plain, name


def _entries(docstring: str) -> list[tuple[str, str]]:
    section = docstring.partition("Args:\n")[2].partition("\n\n")[0]
    return re.findall(r"^    (\*{0,2}\w+): (.*(?:\n     +.*)*)", section, re.MULTILINE)


def test_the_package_shows_the_contract() -> None:
    assert {"from_pretrained", "plan", "LoadPlan", "LoadError"} <= set(reference_loader.__all__)


def test_every_default_passed_by_hand_is_no_option(checkpoint: Any, same_models: Any) -> None:
    folder = checkpoint("llama-f32")
    same_models(from_pretrained(folder, **CONTRACT), from_pretrained(folder))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_would_change_the_model_is_refused(checkpoint: Any, name: str) -> None:
    folder = checkpoint("llama-f32")
    for function in (from_pretrained, plan):
        with pytest.raises(UnsupportedOption, match=name):
            function(folder, **{name: object()})
    assert Options.of({name: None}) == Options()  # as not given


@pytest.mark.parametrize("name", sorted(WITHOUT_EFFECT))
def test_what_changes_nothing_reaches_neither_config_nor_model(name: str) -> None:
    assert Options.of({name: True}) == Options()


def test_a_source_or_a_state_dict_is_needed(checkpoint: Any) -> None:
    """RES-11."""
    for function in (from_pretrained, plan):
        with pytest.raises(BadOptions, match="neither"):
            function(None)
        with pytest.raises(BadOptions, match="both"):
            function(checkpoint("llama-f32"), state_dict={})
        with pytest.raises(BadOptions, match="config"):
            function(None, state_dict={})


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        ({}, "auto"),
        ({"torch_dtype": torch.float16}, torch.float16),
        ({"torch_dtype": "float16", "dtype": None}, "float16"),
        ({"torch_dtype": None}, "auto"),
        ({"torch_dtype": "float16", "dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "float16", "dtype": "auto"}, "auto"),
        ({"torch_dtype": "float16", "dtype": AUTO}, "float16"),
    ],
    ids=str,
)
def test_torch_dtype_is_taken_for_dtype(given: Any, dtype: Any) -> None:
    """DTY-4, DTY-11: `dtype` wins where both are given, "auto" included."""
    options = Options.of(given)
    assert (options.dtype, options.overrides) == (dtype, {})


@BOTH
@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        ({"torch_dtype": "float64"}, torch.float64),
        ({"torch_dtype": "float64", "dtype": "auto"}, torch.float32),
        ({"torch_dtype": "float64", "dtype": None}, torch.float64),
    ],
    ids=str,
)
def test_a_dtype_left_out_is_not_one_passed_as_auto(
    checkpoint: Any, function: Any, given: Any, dtype: Any
) -> None:
    """DTY-4, DTY-11: as before the options were written out in the signature."""
    assert function(checkpoint("llama-f32"), **given).dtype == dtype


def test_trusting_a_checkpoint_without_code_changes_nothing(checkpoint: Any) -> None:
    folder = checkpoint("llama-f32")
    assert str(plan(folder, trust_remote_code=True)) == str(plan(folder))


def test_the_rest_are_overrides_in_their_order() -> None:
    """CFG-3."""
    options = Options.of({"z": 1, "strict": True, "a": None, "_from_auto": True})
    assert list(options.overrides.items()) == [("z", 1), ("a", None)]
    assert options.strict


def test_overrides_is_a_name_like_any_other() -> None:
    assert Options.of({"overrides": 3}).overrides == {"overrides": 3}
