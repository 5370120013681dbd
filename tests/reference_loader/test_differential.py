"""Checkpoints and loads that nobody thought of: stock and the reference must leave the same.

`HYPOTHESIS_PROFILE=nightly` draws 1,000 of them instead of 50, either way the same in every run. A
failure shrinks, and what is left of it is a case: the line that reruns it is printed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from conformance.cases.case import BASE, CAUSAL, CLASSIFIER, Torch
from conformance.cases.token_cases import Load, case_of, load_of
from conformance.deviations import deviations
from conformance.judge.checks import objections
from conformance.judge.divergences import compare
from conformance.judge.session import Session, open_session, rerun
from conformance.observe.loaders import Loader, reference, stock
from conformance.observe.loaders import find as find_loader
from conformance.observe.observe import observe
from conformance.results.records import Divergence, Observation, read_report
from conformance_fixtures.random_checkpoints import DRAWN, Drawn, Stored, whole
from conformance_fixtures.write import digest, materialise

FLOATS = ("float32", "bfloat16", "float16", "float64")
ARCHITECTURES = {
    "LlamaForCausalLM": CAUSAL,
    "LlamaModel": BASE,
    "LlamaForSequenceClassification": CLASSIFIER,
}
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"

# What is stored beside a model's own. No two keys of a checkpoint may name one parameter: no clause
# says which wins, stock takes the first by name and the reference the first in the files.
EXTRAS = {
    "model.layers.0.extra.weight": (2, 3),
    "model.layers.7.mlp.up_proj.weight": (12, 8),
    "model.layers.0.self_attn.rotary_emb.inv_freq": (2,),
    "model.rotary_emb.inv_freq": (2,),
    "lm_head.bias": (16,),
    HEAD: (16, 8),
    "score.weight": (2, 8),
    "position_ids": (1, 4),
    "LayerNorm.gamma": (8,),
    "empty": (0, 4),
    "scalar": (),
}
# A prefix of every key, and a mapping that may or may not undo it.
PREFIXES: tuple[tuple[str, Mapping[str, str] | None], ...] = (
    ("", None),
    ("model.", None),
    ("module.", {r"^module\.": ""}),
    ("module.", {r"^module\.": "", r"extra": "more"}),
    ("module.", {r"^module\.model\.": "model.", r"^module\.": ""}),
    ("", {r"^module\.": ""}),
    ("", {"up_proj": "gate"}),
    ("module.", None),
)
DTYPES: tuple[Mapping[str, Any], ...] = (
    {},
    {"dtype": "auto"},
    {"dtype": None},
    *({"dtype": Torch(name)} for name in FLOATS),
    *({"dtype": name} for name in FLOATS),
    {"torch_dtype": Torch("bfloat16")},
    {"torch_dtype": "float16"},
    {"torch_dtype": "auto"},
)


# --- what is drawn ---


@st.composite
def keys(draw: Any, layers: int, heads: int, architecture: str) -> dict[str, tuple[int, ...]]:
    """Key to shape: the model's own, less some, some of a wrong shape, and others besides."""
    shapes = whole(layers, heads, architecture)
    if HEAD in shapes:
        held = draw(st.sampled_from(("both", "embedding", "head", "neither")))
        for name, without in ((HEAD, ("embedding", "neither")), (EMBEDDING, ("head", "neither"))):
            if held in without:
                del shapes[name]
    for key in draw(st.sets(st.sampled_from(sorted(shapes)), max_size=2)):
        del shapes[key]
    for key in draw(st.sets(st.sampled_from(sorted(shapes)), max_size=2)):
        *outer, last = shapes[key]
        shapes[key] = draw(st.sampled_from(((*outer, last - 1), (*outer, last, 1), (3, last))))
    for key in draw(st.lists(st.sampled_from(sorted(EXTRAS)), max_size=3, unique=True)):
        shapes.setdefault(key, EXTRAS[key])
    return shapes


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """In an order that the seed says; 0 leaves them as they are.

    One number shrinks at once, where a permutation would have to shrink with what it permutes.
    """
    if not seed:
        return list(names)
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())


ORDERS = st.integers(0, 1000)


@st.composite
def shards(draw: Any, stored: Mapping[str, Stored]) -> tuple[tuple[Stored, ...], ...]:
    """Any order, cut anywhere into one to four files."""
    order = [stored[key] for key in shuffled(stored, draw(ORDERS))]
    cuts = sorted(draw(st.sets(st.integers(1, len(order) - 1), max_size=3)))
    pairs = zip([0, *cuts], [*cuts, len(order)], strict=True)
    return tuple(tuple(order[start:stop]) for start, stop in pairs)


@st.composite
def checkpoints(draw: Any, prefix: str = "") -> Drawn:
    """A checkpoint of a tiny Llama, or of something near it."""
    layers, heads = draw(st.integers(1, 2)), draw(st.sampled_from((2, 1)))
    architecture = draw(st.sampled_from(tuple(ARCHITECTURES)))
    shapes = draw(keys(layers, heads, architecture))
    same = HEAD in shapes and draw(st.booleans())
    values = {HEAD: prefix + EMBEDDING} if same else {}
    usual = draw(st.sampled_from(FLOATS))
    others = draw(st.dictionaries(st.sampled_from(list(shapes)), st.sampled_from(FLOATS)))
    stored = {
        key: Stored(prefix + key, shape, others.get(key, usual), values.get(key, ""))
        for key, shape in shapes.items()
    }
    files = draw(shards(stored))
    fields = {"architectures": [architecture], "tie_word_embeddings": draw(st.booleans())}
    style = draw(st.sampled_from(("new", "old")))
    declared = draw(st.sampled_from((None, *FLOATS)))
    if declared is not None:
        fields["torch_dtype" if style == "old" else "dtype"] = declared
    listed = tuple(shuffled((s.key for s in stored.values()), draw(ORDERS)))
    return Drawn(
        files,
        fields,
        listed if len(files) > 1 else (),
        not draw(st.booleans()),
        layers,
        heads,
        style,
    )


@st.composite
def loads(draw: Any) -> Load:
    """A checkpoint with the class and the options it is loaded with."""
    prefix, mapping = draw(st.sampled_from(PREFIXES))
    options: dict[str, Any] = dict(draw(st.sampled_from(DTYPES)))
    if mapping is not None:
        options["key_mapping"] = dict(mapping)
    # Three of four: a load that is refused shows little.
    if draw(st.integers(0, 3)) < 3:
        options["ignore_mismatched_sizes"] = True
    if draw(st.booleans()):
        options["tie_word_embeddings"] = draw(st.booleans())
    model = draw(st.sampled_from((*ARCHITECTURES.values(), "")))
    return Load(draw(checkpoints(prefix)), model, options)


# --- what is known ---


def ties(load: Load) -> bool:
    """Whether the model that is loaded ties its embedding and its head."""
    flags = dict(load.drawn.fields) | dict(load.options)
    named = load.drawn.fields["architectures"] == ["LlamaForCausalLM"]
    return bool(flags["tie_word_embeddings"]) and (
        load.model == CAUSAL or (load.model == "" and named)
    )


def held(load: Load, name: str) -> Stored | None:
    """What the checkpoint holds for a parameter of the causal model, under whatever prefix."""
    last = name.removeprefix("model.")
    stored = [s for shard in load.drawn.shards for s in shard]
    return next((s for s in stored if s.key == last or s.key.endswith(f".{last}")), None)


@dataclass(frozen=True)
class Pair:
    """What the reference and the judged loader left of one load."""

    load: Load
    expected: Observation
    actual: Observation

    @property
    def fresh(self) -> set[str]:
        """Parameters that one of the two initialised: missing, or of a wrong shape."""
        entries = [
            entry.split()[0]
            for info in (self.expected.info, self.actual.info)
            for name in ("missing_keys", "mismatched_keys")
            for entry in (info or {}).get(name, {}).get("values", ())
        ]
        return {*entries, *((EMBEDDING, HEAD) if ties(self.load) else ())}


def rng_after_a_mismatch(pair: Pair, found: Divergence) -> bool:
    """Deviation mismatch-not-named: what is missing is initialised before the error."""
    error = pair.expected.exception
    return (
        error is not None
        and "ShapeMismatch" in error["types"]
        and pair.actual.exception is not None
        and (found.kind, found.where) == ("state", "rng")
    )


def nothing_matches(pair: Pair, found: Divergence) -> bool:
    """Deviation nothing-matches-accepted, if the loader took indeed not one tensor."""
    info = pair.actual.info or {}
    slots = {name for name, facts in pair.actual.tensors.items() if facts["persistent"]}
    return found.kind == "accepted" and set(info["missing_keys"]["values"]) == slots


def head_only(pair: Pair, found: Divergence) -> bool:
    """Deviation tied-embedding-initialised: the generator moves, so all that is fresh differs."""
    stored = held(pair.load, HEAD)
    return (
        ties(pair.load)
        and held(pair.load, EMBEDDING) is None
        and stored is not None
        and stored.shape == (16, 8)
        and initialised_otherwise(pair, found)
    )


def mismatched_tie(pair: Pair, found: Divergence) -> bool:
    """No deviation yet. Tied, and of embedding and head one has a wrong shape that is tolerated.

    By TIE-2 and MIS-5 it is as if it were not stored. Stock takes it for stored: it keeps the other
    apart, leaves both on meta, or ends in a NotImplementedError from comparing a meta tensor.
    """
    partners = [held(pair.load, name) for name in (EMBEDDING, HEAD)]
    if not ties(pair.load) or all(s is None or s.shape == (16, 8) for s in partners):
        return False
    failure = pair.actual.exception
    if failure is not None:
        return found.kind == "rejected" and "NotImplementedError" in failure["types"]
    if found.kind in ("device", "tie"):
        return found.where in (EMBEDDING, HEAD)
    if found.kind == "missing":
        return set(found.expected) ^ set(found.actual) <= {EMBEDDING, HEAD}
    return initialised_otherwise(pair, found)


def initialised_otherwise(pair: Pair, found: Divergence) -> bool:
    """Whether it follows from fresh parameters that are other random numbers."""
    return (
        found.kind == "output"
        or (found.kind, found.where) == ("state", "rng")
        or (found.kind == "values" and found.where in pair.fresh)
    )


KNOWN: dict[Callable[[Pair, Divergence], bool], str] = {
    rng_after_a_mismatch: "mismatch-not-named",
    nothing_matches: "nothing-matches-accepted",
    head_only: "tied-embedding-initialised",
    mismatched_tie: "",
}


# --- the judging ---


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """What happens once in a process is over."""
    open_session("stock")


def differences(load: Load, folder: Path, loader: Loader) -> tuple[Pair, list[Divergence]]:
    """What the loader left and the reference did not, less what is known."""
    case = replace(load.case(), folder=load.drawn.write(folder))
    expected, actual = (observe(case, each).observation for each in (reference, loader))
    broken = objections(case, expected)
    assert broken == (), f"the reference breaks a clause: {broken}"
    error = expected.exception
    assert error is None or "LoadError" in error["types"], f"the reference fails: {error}"
    load = replace(load, refused=error is not None)
    return Pair(load, expected, actual), compare(expected, actual)


def hold_against_the_reference(load: Load, loader: str) -> None:
    """Fail on a difference that is not known."""
    with tempfile.TemporaryDirectory() as folder:
        pair, found = differences(load, Path(folder) / "checkpoint", find_loader(loader))
    unknown = [d for d in found if not any(excuse(pair, d) for excuse in KNOWN)]
    if unknown:
        raise AssertionError(report(pair.load, unknown, loader))


def report(load: Load, unknown: list[Divergence], loader: str) -> str:
    """The text of a failure."""
    session = Session(loader, find_loader(loader), version("transformers"))
    lines = [f"{d.kind} {d.where}: expected {d.expected}, actual {d.actual}" for d in unknown]
    return "\n".join(
        [
            "The loader leaves what the reference does not:",
            *(f"  {line}" for line in lines),
            f"Loaded into {load.model or 'the class of the config'} with {load.options}.",
            f"rerun: {rerun(load.case(), session)}",
        ]
    )


# --- the tests ---


@given(load=loads())
def test_any_checkpoint(load: Load) -> None:
    """MAP, DTY, TIE, MIS, INF, STA: stock and the reference leave the same, or what is known."""
    hold_against_the_reference(load, "stock")


def counterexample(mutant: str, *phases: Phase) -> str:
    """The text with which a mutant is found out, in 25 examples."""

    @settings(max_examples=25, phases=phases)
    @given(load=loads())
    def any_checkpoint(load: Load) -> None:
        hold_against_the_reference(load, f"conformance.mutants:{mutant}")

    with pytest.raises(AssertionError) as caught:
        any_checkpoint()
    return str(caught.value)


RERUN = re.compile(r"rerun: (conformance check --case (drawn/[\w-]+) --loader \S+)$", re.MULTILINE)


@pytest.mark.parametrize("name", ["one_ulp_off", "lost_tie", "swallowed_missing_key"])
def test_a_mutant_is_found(name: str) -> None:
    """In few examples, so that the fifty say something."""
    assert RERUN.search(counterexample(name, Phase.generate))


@pytest.mark.slow
def test_a_counterexample_is_rerun_by_the_line_printed(tmp_path: Path) -> None:
    """Shrunk, in a process and with a cache that know nothing of it: the same divergence."""
    told = counterexample("one_ulp_off", Phase.generate, Phase.shrink)
    (found,) = RERUN.finditer(told)
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(found[1]), "--out", str(tmp_path)],
        env=os.environ | {"FROM_PRETRAINED_CONFORMANCE_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    (result,) = [r for r in read_report(tmp_path / "report.jsonl") if r["record"] == "result"]
    assert result["case"] == found[2]
    assert f"rerun: {found[1]}\n" in done.stdout
    divergences = [f"  {d['kind']} {d['where']}: " for d in result["divergences"]]
    assert divergences
    assert all(each in told for each in divergences)


@given(load=loads(), refused=st.booleans())
def test_an_id_is_the_load(load: Load, refused: bool) -> None:
    """Whoever has it can write the same files again, and load them so."""
    load = replace(load, refused=refused)
    case = load.case()
    assert load_of(case.id) == load
    assert case_of(case.id) == case
    assert Drawn.of_token(case.recipe.removeprefix(DRAWN)) == load.drawn


def test_the_files_of_an_id_are_those_that_were_drawn(tmp_path: Path) -> None:
    """By the cache that every recipe goes through."""
    load = find(loads(), lambda load: len(load.drawn.shards) == 2)
    written = materialise(load.case().recipe, root=tmp_path / "cache")
    assert digest(written) == digest(load.drawn.write(tmp_path / "drawn"))


@pytest.mark.slow
def test_a_failure_shrinks() -> None:
    """To one layer, the plainest options, the usual order and the files it needs."""
    load = find(
        loads(),
        lambda load: (
            any(s.dtype == "float16" for s in load.drawn.shards[-1]) and len(load.drawn.shards) > 1
        ),
        settings=settings(max_examples=500),
    )
    keys_in_order = [s.key for shard in load.drawn.shards for s in shard]
    own = whole(1, 2, *load.drawn.fields["architectures"])  # type: ignore[misc]
    assert (load.model, load.drawn.layers, len(load.drawn.shards)) == (CAUSAL, 1, 2)
    assert load.options == {"ignore_mismatched_sizes": True}
    assert keys_in_order == [key for key in own if key in keys_in_order]
    assert len(load.case().id) < 200


@pytest.mark.parametrize(
    ("profile", "examples"), [({}, 50), ({"HYPOTHESIS_PROFILE": "nightly"}, 1000)]
)
def test_the_environment_says_how_much_is_drawn(profile: dict[str, str], examples: int) -> None:
    """As `make test` and `make test-nightly` do; nothing else of the settings changes."""
    told = "import hypothesis, tests.conftest; print(hypothesis.settings().max_examples)"
    environment = {k: v for k, v in os.environ.items() if k != "HYPOTHESIS_PROFILE"} | profile
    done = subprocess.run(
        [sys.executable, "-c", told],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == examples


EXCUSED: dict[Callable[[Pair, Divergence], bool], list[tuple[dict[str, Any], dict[str, Any]]]] = {
    rng_after_a_mismatch: [({"model.norm.weight": (7,), HEAD: None}, {})],
    nothing_matches: [({"*": "module."}, {})],
    head_only: [({EMBEDDING: None, "model.norm.weight": (8,)}, {"tie_word_embeddings": True})],
    mismatched_tie: [
        (shapes, {"tie_word_embeddings": True, "ignore_mismatched_sizes": True})
        for shapes in (
            {EMBEDDING: (15, 8)},
            {HEAD: (15, 8)},
            {EMBEDDING: None, HEAD: (15, 8)},
            {EMBEDDING: (15, 8), HEAD: (15, 8)},
        )
    ],
}


@pytest.mark.parametrize(
    ("excuse", "changes", "options"),
    [(excuse, *pair) for excuse, pairs in EXCUSED.items() for pair in pairs],
)
def test_an_excuse_is_needed(
    excuse: Callable[[Pair, Divergence], bool],
    changes: dict[str, Any],
    options: dict[str, Any],
    tmp_path: Path,
) -> None:
    """A load in which stock still differs; where it does not, the excuse is to be taken out."""
    shapes = whole(1, 2, "LlamaForCausalLM") | changes
    prefix = shapes.pop("*", "")
    stored = tuple(Stored(prefix + key, shape) for key, shape in shapes.items() if shape)
    fields = {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False}
    load = Load(Drawn((stored,), fields), CAUSAL, options)
    pair, found = differences(load, tmp_path / "checkpoint", stock)
    assert found
    assert [d for d in found if not excuse(pair, d)] == []


def test_excuses_name_deviations() -> None:
    """Each is listed for the installed release, or says that it is not."""
    import transformers

    listed = {d.id for d in deviations() if d.is_of(transformers.__version__)}
    assert {name for name in KNOWN.values() if name} <= listed
    assert KNOWN.keys() == EXCUSED.keys()
