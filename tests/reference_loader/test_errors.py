"""Every way to fail: the exception is ours and the documented builtin, and nothing is left behind.

CFG-6, CFG-7, DTY-5, DTY-6, FMT-1, FMT-2, IDX-4 to IDX-6, IDX-9, MAP-7, MIS-4, RES-4, RES-5, STA-2.
"""

from __future__ import annotations

import ast
import json
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageClassification, LlamaForCausalLM

from reference_loader import LoadError, errors, from_pretrained, plan

BUILTIN = {
    "SourceNotFound": OSError,
    "WeightsNotFound": OSError,
    "ConfigNotFound": OSError,
    "ShardNotFound": OSError,
    "BadIndex": ValueError,
    "UnsafePath": ValueError,
    "BadTensorFile": OSError,
    "BadDtype": ValueError,
    "ShapeMismatch": RuntimeError,
    "NothingMatches": ValueError,
    "NotStrict": ValueError,
    "UnknownModelClass": ValueError,
    "UnsafePickle": ValueError,
    "BadOptions": ValueError,
    "BadConfig": ValueError,
    "UnsupportedOption": ValueError,
}
CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, LoadError) and value is not LoadError
]


@dataclass
class Failure:
    """A load that fails: how, and what its message must contain."""

    error: str
    names: tuple[str, ...]
    recipe: str = "llama-f32"
    faults: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    planned: bool = True  # whether `plan` already refuses


SHARDED = "llama-f32-2"
LAST = "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
FAILURES = {
    "no weights": Failure(
        "WeightsNotFound", ("copy-0", "model.safetensors"), faults=("no-weights",)
    ),
    "only the other kind": Failure(
        "WeightsNotFound", ("copy-0", "pytorch_model.bin"), options={"use_safetensors": False}
    ),
    "no such variant": Failure("WeightsNotFound", ("model.fp16.",), options={"variant": "fp16"}),
    "no such subfolder": Failure("SourceNotFound", ("inner",), options={"subfolder": "inner"}),
    "no config": Failure("ConfigNotFound", ("copy-0", "config.json"), faults=("no-config",)),
    "config not JSON": Failure("ConfigNotFound", ("config.json",), faults=("config-not-json",)),
    "index not JSON": Failure("BadIndex", (INDEX,), SHARDED, ("index-not-json",)),
    "no metadata": Failure("BadIndex", (INDEX, "metadata"), SHARDED, ("index-without-metadata",)),
    "no weight map": Failure(
        "BadIndex", (INDEX, "weight_map"), SHARDED, ("index-without-weight-map",)
    ),
    "absent shard": Failure("ShardNotFound", (INDEX, LAST), SHARDED, ("absent-shard",)),
    "outside": Failure("UnsafePath", (INDEX, "../outside"), SHARDED, ("index-leads-outside",)),
    "cut payload": Failure("BadTensorFile", ("model.safetensors",), faults=("truncated-shard",)),
    "cut shard": Failure("BadTensorFile", (LAST,), SHARDED, ("truncated-shard",)),
    "cut header": Failure("BadTensorFile", ("model.safetensors",), faults=("truncated-header",)),
    "no dtype": Failure("BadDtype", ("floaty",), options={"dtype": "floaty"}),
    "no dtype by its old name": Failure("BadDtype", ("fl",), options={"torch_dtype": "fl"}),
    "dtype is a function": Failure("BadDtype", ("matmul",), options={"dtype": "matmul"}),
    "integer dtype": Failure("BadDtype", ("int32",), options={"dtype": torch.int32}),
    "wrong shape": Failure(
        "ShapeMismatch",
        ("model.layers.0.mlp.up_proj.weight", "[63, 32]", "[64, 32]", "model.safetensors"),
        faults=("wrong-shape",),
        planned=False,
    ),
    "nothing matches": Failure(
        "NothingMatches",
        ("'module.model.embed_tokens.weight'", "'model.embed_tokens.weight'", "model.safetensors"),
        faults=("module-prefix",),
    ),
    "architecture unknown": Failure(
        "UnknownModelClass", ("NoSuchModel",), fields={"architectures": ["NoSuchModel"]}
    ),
    "no architectures": Failure(
        "UnknownModelClass", ("architectures",), fields={"architectures": None}
    ),
    "not in the table": Failure(
        "UnknownModelClass",
        ("AutoModelForImageClassification", "llama"),
        options={"model_class": AutoModelForImageClassification},
    ),
    "quantised config": Failure(
        "UnsupportedOption",
        ("quantization_config",),
        fields={"quantization_config": {"quant_method": "fp8"}},
    ),
    "pickle that runs code": Failure(
        "UnsafePickle", ("pytorch_model.bin",), faults=("pickle-runs-code",)
    ),
    "pickle cut short": Failure(
        "BadTensorFile", ("pytorch_model.bin",), faults=("pickle-truncated",)
    ),
    "named outside": Failure("UnsafePath", ("../outside.safetensors",), faults=("named-outside",)),
    "named as a pickle": Failure("BadOptions", ("pytorch_model.bin",), faults=("named-as-pickle",)),
}


def _prepare(failure: Failure, own: Callable[..., Path]) -> Path:
    folder = own(failure.recipe, *failure.faults, **failure.fields)
    if failure.faults == ("index-leads-outside",):
        (folder.parent / "outside.safetensors").write_bytes(b"")
    return folder


@pytest.mark.parametrize("name", FAILURES)
def test_a_failing_load_names_the_culprit_and_leaves_nothing_behind(
    name: str, own: Any, unchanged: Any
) -> None:
    """STA-2, and the clause of each failure."""
    failure = FAILURES[name]
    folder = _prepare(failure, own)
    with (
        unchanged(folder),
        pytest.raises(BUILTIN[failure.error]) as raised,
    ):
        from_pretrained(folder, **failure.options)
    assert type(raised.value) is getattr(errors, failure.error)
    assert raised.value.hint
    assert [part for part in failure.names if part not in str(raised.value)] == []


@pytest.mark.parametrize("name", [name for name in FAILURES if FAILURES[name].planned])
def test_plan_fails_as_the_load_does(name: str, own: Any, unchanged: Any) -> None:
    failure = FAILURES[name]
    folder = _prepare(failure, own)
    with pytest.raises(LoadError) as loading:
        from_pretrained(folder, **failure.options)
    with unchanged(folder), pytest.raises(type(loading.value)) as planning:
        plan(folder, **failure.options)
    assert str(planning.value) == str(loading.value)


def test_no_such_folder(tmp_path: Path, unchanged: Any) -> None:
    """RES-5."""
    with unchanged(tmp_path), pytest.raises(OSError, match="nowhere"):
        from_pretrained(tmp_path / "nowhere")


def test_the_table_names_classes_that_there_are() -> None:
    assert set(BUILTIN) <= {error.__name__ for error in CLASSES}


@pytest.mark.parametrize("error", CLASSES)
def test_each_error_is_one_builtin_too_and_has_a_code_and_a_docstring(
    error: type[LoadError],
) -> None:
    """A caller who catches the documented builtin catches it; it is never a bare KeyError."""
    assert issubclass(error, LoadError)
    builtins = [
        kind for kind in (OSError, ValueError, TypeError, RuntimeError) if issubclass(error, kind)
    ]
    assert len(builtins) == 1
    assert BUILTIN.get(error.__name__, builtins[0]) is builtins[0]
    assert not issubclass(error, KeyError)
    words = re.sub("([A-Z])", r" \1", error.__name__).lower().split()
    assert error.code == "-".join(words)
    assert error.__doc__


@pytest.mark.parametrize("error", [LoadError, *CLASSES])
def test_message_and_hint_survive_text_and_pickle(error: type[LoadError]) -> None:
    """An error crosses a process whole."""
    made = error("F holds no K.", "Mend it.")
    again = pickle.loads(pickle.dumps(made))
    for one in (made, again):
        assert (type(one), one.message, one.hint) == (error, "F holds no K.", "Mend it.")
        assert str(one) == "F holds no K. Hint: Mend it."
    assert str(error("Alone.")) == "Alone."


# Where every error has a hint; a folder or file is added here once its errors do.
HINTED = ("source", "model", "options.py", "load.py")
NAMES = {error.__name__ for error in CLASSES}


def without_hint(source: str) -> list[str]:
    """The calls that make a `LoadError` and pass no hint, as they are written."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    made = [call for call in calls if getattr(call.func, "id", "") in NAMES]
    return [ast.unparse(call) for call in made if len(call.args) + len(call.keywords) < 2]


@pytest.mark.parametrize("name", HINTED)
def test_every_error_has_a_hint(name: str) -> None:
    there = Path(errors.__file__).parent / name
    for path in [there] if there.is_file() else there.glob("**/*.py"):
        assert without_hint(path.read_text("utf-8")) == [], path


def test_an_error_without_a_hint_is_noticed() -> None:
    assert without_hint("raise BadIndex(f'{path} is malformed.')") != []
    assert without_hint("raise BadIndex('It is malformed.', 'Save it again.')") == []


def test_the_cause_is_kept(checkpoint: Any) -> None:
    with pytest.raises(errors.BadIndex) as raised:
        from_pretrained(checkpoint(SHARDED, "index-not-json"))
    assert isinstance(raised.value.__cause__, ValueError)


def test_every_mismatch_is_named_at_once(own: Any) -> None:
    """MIS-4: the reader mends all of them in one go."""
    folder = own("llama-f32", hidden_size=16, head_dim=8)
    with pytest.raises(errors.ShapeMismatch) as raised:
        from_pretrained(folder)
    for name in plan(folder).disagreements["mismatched"]:
        assert name in str(raised.value)
    assert len(plan(folder).mismatched) > 10


class Breaks(LlamaForCausalLM):
    """A user's class whose constructor raises."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        raise LookupError("the constructor's own")


class BreaksInInit(LlamaForCausalLM):
    """A user's class whose initialisation raises, having drawn a number."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.built = True

    def _init_weights(self, module: Any) -> None:
        torch.rand(1)
        if getattr(self, "built", False):
            raise LookupError("the initialiser's own")


def test_the_process_is_as_before_when_the_constructor_raises(
    checkpoint: Any, unchanged: Any
) -> None:
    """STA-2: default dtype, hooks and generator, though the error is not ours."""
    folder = checkpoint("llama-bf16")
    with unchanged(folder), pytest.raises(LookupError, match="constructor's own"):
        from_pretrained(folder, model_class=Breaks)


def test_the_process_is_as_before_when_initialising_raises(checkpoint: Any, unchanged: Any) -> None:
    """STA-2: the generator too."""
    folder = checkpoint("llama-bf16", "missing-head")
    with unchanged(folder), pytest.raises(LookupError, match="initialiser's own"):
        from_pretrained(folder, model_class=BreaksInInit)


def test_a_broken_generation_config_is_refused_and_draws_nothing(own: Any, unchanged: Any) -> None:
    """CFG-4, STA-2: one file of the checkpoint is damaged, and it is named."""
    folder = own("llama-f32", "missing-head")
    (folder / "generation_config.json").write_text("{")
    with unchanged(folder), pytest.raises(LoadError, match=r"generation_config\.json"):
        from_pretrained(folder)


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": "no-such-type"},
        {"model_type": ["llama"]},
        {"architectures": ["logging"]},
        {"architectures": ["LlamaConfig"]},
        {"architectures": [1]},
        {"dtype": "floaty"},
    ],
    ids=str,
)
def test_a_config_of_nonsense_is_a_load_error(own: Any, fields: dict[str, Any]) -> None:
    """CFG-5, DTY-5: what the file says is wrong is said by a `LoadError`, whoever found it."""
    folder = own("llama-f32", **fields)
    with pytest.raises(LoadError):
        from_pretrained(folder)


def test_a_pattern_that_is_none_is_a_load_error(checkpoint: Any) -> None:
    """MAP-6."""
    with pytest.raises(LoadError, match="key_mapping"):
        from_pretrained(checkpoint("llama-f32"), key_mapping={"(": "x"})


def test_a_float8_model_is_refused_as_a_dtype(checkpoint: Any) -> None:
    """DTY-6: a floating dtype that torch builds no module in."""
    with pytest.raises(LoadError, match="float8"):
        from_pretrained(checkpoint("llama-f32"), dtype="float8_e4m3fn")


def test_a_config_that_is_no_object(own: Any) -> None:
    """CFG-7."""
    folder = own("llama-f32")
    (folder / "config.json").write_text(json.dumps(["llama"]))
    with pytest.raises(errors.ConfigNotFound, match=r"config\.json"):
        from_pretrained(folder)
