"""The checkpoints that everything else is judged on: same bytes, whole files, honest damages."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import write
from fixtures.config_faults import CHANGES, GENERATION
from fixtures.cut_faults import CUTS, FLIPS
from fixtures.families import FAMILIES
from fixtures.faults import FAULTS, Fault
from fixtures.file_faults import DAMAGES, NEWER
from fixtures.files import SAFETENSORS_DTYPES
from fixtures.index_faults import CONTENTS, NAMES
from fixtures.recipes import EMBEDDING, HEAD, RECIPES, Geometry, Recipe, config, stored_tensors
from fixtures.value_faults import KINDS
from fixtures.write import digest, materialise, read_safetensors, write_safetensors

REPOSITORY = Path(write.__file__).parents[1]

# Bytes that must not move, on any machine and under any torch. Changing them on purpose means
# raising WRITER_VERSION as well, or old caches would go on serving the old bytes.
PINNED = {
    "llama-f32": "dd53a1281c4a47a386cd25ab50abfab5ce97f9d23cf7cfef76d515e2042fb9b0",
    "llama-f16-2": "8c88878d27f6961bef696882b9dc0f7e2cd03880e2ce9d995e035d7c2a7e0c9c",
    "llama-mixed-2": "979c9c8abf67f55b10fdaa8f0e6f47b5d9b3960d1ee288b3ab56ddae69307d1a",
    "llama-old-config": "ddf4429af6395ae67df80156daae39814bdb23e804953df0206f436b60e13bdc",
    "llama-tied-embedding-3": "abd1f1ba27ca83eace60ba08296f5ced75930f905c7ce36d42afba4e186cbd1f",
    "llama-base": "26f3a84f190d2055f34e9dd7f08991006150bc09b54ab15bfe951ccf933fb1b7",
    "llama-generation": "6c5e8213809cfba2a2eb5fd015f014e79c76411af093985bf34bb92edf507b7b",
}
INV_FREQ = [f"model.layers.{n}.self_attn.rotary_emb.inv_freq" for n in range(3)]
LAST_OF_TWO = "model-00002-of-00002.safetensors"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the module: materialised checkpoints are never changed."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Path], None]], None]:
    """Register a function as the fault "planted"."""

    def register(function: Callable[[Path], None]) -> None:
        monkeypatch.setattr(write, "FAULTS", {"planted": Fault("planted", "a test", function)})

    return register


def weight_map(folder: Path) -> dict[str, str]:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    listed: dict[str, str] = index["weight_map"]
    return listed


def read_back(folder: Path) -> dict[str, torch.Tensor]:
    """All keys of all weight files, read by the safetensors library; no key is held twice."""
    held: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors = safetensors.torch.load_file(path)
        assert not held.keys() & tensors.keys()
        held.update(tensors)
    return held


def assert_same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Same keys, dtypes, shapes and bytes."""
    assert actual.keys() == expected.keys()
    for key, tensor in expected.items():
        assert actual[key].dtype == tensor.dtype, key
        assert actual[key].shape == tensor.shape, key
        assert bits(actual[key]) == bits(tensor), key


def bits(tensor: torch.Tensor) -> list[int]:
    values: list[int] = tensor.contiguous().reshape(-1).view(torch.uint8).tolist()
    return values


# --- recipes ---


@pytest.mark.parametrize("name", PINNED)
def test_a_recipe_is_the_same_bytes_everywhere(name: str, root: Path) -> None:
    assert digest(materialise(name, root=root)) == PINNED[name]


@pytest.mark.parametrize("name", RECIPES)
def test_the_safetensors_library_reads_back_what_is_stored(name: str, root: Path) -> None:
    assert_same(read_back(materialise(name, root=root)), stored_tensors(RECIPES[name]))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_holds_what_its_name_says(name: str) -> None:
    recipe, words = RECIPES[name], name.split("-")
    dtypes = {"f16": "float16", "bf16": "bfloat16", "mixed": "mixed", "old": "bfloat16"}
    named = [dtypes[word] for word in words if word in dtypes]
    assert recipe.name == name
    assert recipe.dtype == (named or ["float32"])[0]
    assert recipe.shards == (int(words[-1]) if words[-1].isdigit() else 1)
    assert recipe.tie_word_embeddings == ("tied" in words)
    assert recipe.stored == (words[2] if "tied" in words or "untied" in words else "separate")
    assert (recipe.config_dtype is None) == ("undeclared" in words)
    assert (recipe.config_style == "old") == ("old" in words)
    assert (recipe.architecture == "LlamaModel") == ("base" in words)
    assert (recipe.generation_config is None) == ("generation" not in words)


@pytest.mark.parametrize("name", [name for name in RECIPES if RECIPES[name].shards > 1])
def test_shards_and_index_agree(name: str, root: Path) -> None:
    recipe, folder = RECIPES[name], materialise(name, root=root)
    names = [f"model-{n:05}-of-{recipe.shards:05}.safetensors" for n in range(1, recipe.shards + 1)]
    shards = [safetensors.torch.load_file(folder / shard) for shard in names]
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    tensors = stored_tensors(recipe)
    assert sorted(path.name for path in folder.glob("*.safetensors")) == names
    assert list(index["weight_map"]) == list(tensors)
    assert list(index["weight_map"].values()) == sorted(index["weight_map"].values())
    for shard, held in zip(names, shards, strict=True):
        assert held.keys() == {key for key, file in index["weight_map"].items() if file == shard}
    size = sum(len(bits(tensor)) for tensor in tensors.values())
    assert index["metadata"] == {"total_size": size}


@pytest.mark.parametrize("shards", [2, 3, 5])
def test_shards_are_of_near_equal_bytes(shards: int, tmp_path: Path) -> None:
    folder = materialise(Recipe("even", shards=shards), root=tmp_path)
    sizes = [path.stat().st_size for path in folder.glob("*.safetensors")]
    largest = 4 * 128 * 32  # the embedding: what one shard may be over or under
    assert len(sizes) == shards
    assert max(sizes) - min(sizes) <= largest


def test_as_many_shards_as_tensors_and_no_more(tmp_path: Path) -> None:
    most = Recipe("most", shards=len(stored_tensors(Recipe("count"))))
    folder = materialise(most, root=tmp_path)
    assert sorted(weight_map(folder).values()) == sorted(
        p.name for p in folder.glob("*.safetensors")
    )
    with pytest.raises(ValueError, match="31 shards wanted, but there are only 30 tensors"):
        materialise(replace(most, shards=most.shards + 1), root=tmp_path)


def test_a_single_file_has_no_index(root: Path) -> None:
    names = {path.name for path in materialise("llama-f32", root=root).iterdir()}
    assert names == {"config.json", "model.safetensors"}


def test_generation_config_is_written_only_when_given(root: Path) -> None:
    written = json.loads(
        (materialise("llama-generation", root=root) / "generation_config.json").read_text()
    )
    assert (written["eos_token_id"], written["max_new_tokens"]) == (5, 7)
    assert written["do_sample"] is False
    assert not (materialise("llama-f32", root=root) / "generation_config.json").exists()


@pytest.mark.parametrize(
    ("stored", "held"),
    [
        ("separate", {EMBEDDING, HEAD}),
        ("equal", {EMBEDDING, HEAD}),
        ("embedding", {EMBEDDING}),
        ("head", {HEAD}),
        ("neither", set[str]()),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "mixed"])
def test_stored_says_which_of_the_pair_is_held(stored: str, held: set[str], dtype: str) -> None:
    tensors = stored_tensors(Recipe("pair", stored=stored, dtype=dtype))
    assert tensors.keys() & {EMBEDDING, HEAD} == held
    if len(held) == 2:
        same = torch.equal(tensors[EMBEDDING].float(), tensors[HEAD].float())
        assert same == (stored == "equal")
        assert tensors[EMBEDDING].data_ptr() != tensors[HEAD].data_ptr()


@pytest.mark.parametrize(
    ("recipe", "embeddings", "head"),
    [
        ("t5-tied-embedding", {"shared.weight"}, False),
        ("t5-tied-inner", {"decoder.embed_tokens.weight"}, False),
        ("t5-tied-head", set[str](), True),
        ("t5-tied-equal-2", set(FAMILIES["t5"].embeddings), True),
        ("t5-untied-separate", set(FAMILIES["t5"].embeddings), True),
        ("mamba-tied-embedding", {"backbone.embeddings.weight"}, False),
    ],
)
def test_the_names_of_one_embedding_are_equal_and_the_head_only_where_it_is_tied(
    recipe: str, embeddings: set[str], head: bool
) -> None:
    family = FAMILIES[RECIPES[recipe].family]
    tensors = stored_tensors(RECIPES[recipe])
    tables = {key: tensors[key] for key in family.embeddings if key in tensors}
    assert (tables.keys(), HEAD in tensors) == (embeddings, head)
    assert len({tuple(bits(table)) for table in tables.values()}) <= 1
    if head and tables:
        same = torch.equal(tensors[HEAD], next(iter(tables.values())))
        assert same == (RECIPES[recipe].stored == "equal")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_all_that_the_class_of_its_config_holds(family: str) -> None:
    import transformers

    recipe = Recipe("whole", family=family, tie_word_embeddings=True, stored="equal")
    fields = config(recipe)
    (name,) = fields["architectures"]  # type: ignore[misc]
    model = getattr(transformers, str(name))
    held = model(model.config_class(**fields)).state_dict()
    stored = stored_tensors(recipe)
    assert {key: t.shape for key, t in held.items()} == {key: t.shape for key, t in stored.items()}


def test_file_order_is_embedding_layers_norm_head() -> None:
    keys = list(stored_tensors(Recipe("order")))
    layers = [int(key.split(".")[2]) for key in keys if ".layers." in key]
    assert (keys[0], keys[-2:]) == (EMBEDDING, ["model.norm.weight", HEAD])
    assert layers == sorted(layers) and keys[1] == "model.layers.0.input_layernorm.weight"


def test_mixed_has_every_float_dtype_and_begins_with_float16(root: Path) -> None:
    tensors = stored_tensors(RECIPES["llama-mixed-2"])
    dtypes = [tensor.dtype for tensor in tensors.values()]
    assert dtypes[0] == torch.float16
    assert set(dtypes) == {torch.float16, torch.bfloat16, torch.float32}
    first, _ = read_safetensors(
        materialise("llama-mixed-undeclared", root=root) / "model.safetensors"
    )
    assert next(iter(first.values())).dtype == torch.float16
    assert tensors[min(tensors)].dtype == torch.bfloat16


def test_the_base_model_has_the_causal_models_values_under_its_own_keys() -> None:
    base, causal = (stored_tensors(RECIPES[name]) for name in ("llama-base", "llama-f32"))
    del causal[HEAD]
    assert_same(base, {key.removeprefix("model."): tensor for key, tensor in causal.items()})
    assert not any(key.startswith("model.") for key in base)


def test_shapes_follow_the_geometry() -> None:
    geometry = Geometry(vocab_size=7, hidden_size=8, intermediate_size=5, num_hidden_layers=1)
    tensors = stored_tensors(Recipe("odd", geometry))
    layer = "model.layers.0."
    shapes = {key.removeprefix(layer): tuple(tensor.shape) for key, tensor in tensors.items()}
    assert shapes[EMBEDDING] == shapes[HEAD] == (7, 8)
    assert shapes["self_attn.q_proj.weight"] == shapes["self_attn.o_proj.weight"] == (8, 8)
    assert shapes["self_attn.k_proj.weight"] == shapes["self_attn.v_proj.weight"] == (4, 8)
    assert shapes["mlp.gate_proj.weight"] == shapes["mlp.up_proj.weight"] == (5, 8)
    assert shapes["mlp.down_proj.weight"] == (8, 5)
    assert shapes["input_layernorm.weight"] == shapes["model.norm.weight"] == (8,)


def test_values_are_spread_and_norms_are_near_one() -> None:
    for key, tensor in stored_tensors(RECIPES["llama-f32"]).items():
        middle, reach = (1.0, 1 / 8) if key.endswith("norm.weight") else (0.0, 1 / 4)
        distance = (tensor - middle).abs()
        assert distance.max() <= reach, key
        assert distance.max() > reach * 0.8, key  # uniform, not bunched
        assert len(set(tensor.flatten().tolist())) > 0.9 * min(tensor.numel(), 2**15), key


def test_values_depend_on_seed_and_key() -> None:
    zero, one = (stored_tensors(Recipe("seeds", seed=seed)) for seed in (0, 1))
    q_proj = "model.layers.{}.self_attn.q_proj.weight"
    assert not torch.equal(zero[EMBEDDING], one[EMBEDDING])
    assert not torch.equal(zero[q_proj.format(0)], zero[q_proj.format(1)])


@pytest.mark.parametrize(
    ("recipe", "declared"),
    [
        (Recipe("new"), {"dtype": "float32"}),
        (Recipe("mixed", dtype="mixed"), {"dtype": "float32"}),
        (Recipe("none", config_dtype=None), {}),
        (Recipe("other", dtype="float16", config_dtype="bfloat16"), {"dtype": "bfloat16"}),
        (Recipe("old", dtype="float16", config_style="old"), {"torch_dtype": "float16"}),
    ],
    ids=lambda value: value.name if isinstance(value, Recipe) else "",
)
def test_config_declares_the_dtype(recipe: Recipe, declared: dict[str, str]) -> None:
    written = config(recipe)
    assert {key: written[key] for key in ("dtype", "torch_dtype") if key in written} == declared


def test_config_style_names_the_rope_fields() -> None:
    new, old = (config(Recipe("rope", config_style=style)) for style in ("new", "old"))
    assert new["rope_parameters"] == {"rope_type": "default", "rope_theta": 10000.0}
    assert (old["rope_theta"], old["rope_scaling"]) == (10000.0, None)
    assert "rope_theta" not in new and "rope_parameters" not in old


@pytest.mark.parametrize(
    "field",
    [
        {"dtype": "float8"},
        {"stored": "both"},
        {"config_style": "newer"},
        {"config_dtype": "int8"},
        {"architecture": "GPT2LMHeadModel"},
        {"shards": 0},
    ],
    ids=str,
)
def test_a_recipe_refuses_what_it_does_not_know(field: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"recipe 'wrong': {next(iter(field))}"):
        replace(Recipe("wrong"), **field)  # type: ignore[arg-type]


# --- files ---

SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@st.composite
def any_tensor(draw: st.DrawFn) -> torch.Tensor:
    """Any bit pattern, in any dtype and shape, zero elements and zero dimensions included."""
    dtype = draw(st.sampled_from(list(SAFETENSORS_DTYPES)))
    empty = torch.empty(draw(SHAPES), dtype=dtype)
    size = empty.numel() * empty.element_size()
    if not size:
        return empty
    content = draw(st.binary(min_size=size, max_size=size))
    if dtype == torch.bool:
        content = bytes(byte & 1 for byte in content)
    return torch.frombuffer(bytearray(content), dtype=dtype).reshape(empty.shape)


KEYS = st.text(st.characters(codec="utf-8"), max_size=8).filter(lambda key: key != "__metadata__")
METADATA = st.none() | st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3)


@settings(max_examples=150, deadline=None)
@given(tensors=st.dictionaries(KEYS, any_tensor(), max_size=4), metadata=METADATA)
def test_safetensors_round_trip(
    tensors: dict[str, torch.Tensor],
    metadata: dict[str, str] | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.safetensors"
    write_safetensors(path, tensors, metadata)
    ours, read_metadata = read_safetensors(path)
    assert list(ours) == list(tensors)
    assert read_metadata == metadata
    assert_same(ours, tensors)
    data = path.read_bytes()
    assert int.from_bytes(data[:8], "little") % 8 == 0
    assert_same(safetensors.torch.load(data), tensors)


@pytest.mark.parametrize("view", ["transposed", "sliced", "conjugated", "parameter"])
def test_views_are_written_as_they_look(view: str, tmp_path: Path) -> None:
    whole = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    tensor = {
        "transposed": whole.T,
        "sliced": whole[1:, ::2],
        "conjugated": torch.complex(whole, whole).conj(),
        "parameter": torch.nn.Parameter(whole),
    }[view]
    write_safetensors(tmp_path / "view.safetensors", {"view": tensor})
    read = safetensors.torch.load_file(tmp_path / "view.safetensors")["view"]
    assert torch.equal(read, tensor)


def test_a_dtype_without_a_name_is_refused_before_writing(tmp_path: Path) -> None:
    path = tmp_path / "complex.safetensors"
    with pytest.raises(ValueError, match=r"no name for torch\.complex128"):
        write_safetensors(path, {"a": torch.zeros(1), "z": torch.zeros(1, dtype=torch.complex128)})
    assert not path.exists()


@pytest.mark.parametrize("kept", [0, 7, 20, -1])
def test_reading_a_cut_file_names_it(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    write_safetensors(path, {"a": torch.zeros(3)})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"cut\.safetensors"):
        read_safetensors(path)


def test_bin_is_read_back_with_weights_only(tmp_path: Path) -> None:
    tensors = stored_tensors(RECIPES["llama-mixed-2"])
    write.write_bin(tmp_path / "pytorch_model.bin", tensors)
    assert_same(torch.load(tmp_path / "pytorch_model.bin", weights_only=True), tensors)


def test_index_keeps_order_and_leaves_metadata_out(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    write.write_index(path, {"b": "2", "a": "1"}, None)
    index = json.loads(path.read_text())
    assert list(index) == ["weight_map"]
    assert list(index["weight_map"]) == ["b", "a"]


# --- materialise ---


def test_a_checkpoint_is_written_once(tmp_path: Path) -> None:
    def times() -> dict[Path, int]:
        # The cache folder too: its time moves when a partial entry comes and goes.
        return {path: path.stat().st_mtime_ns for path in (tmp_path, *tmp_path.rglob("*"))}

    first = materialise("llama-f32-2", ["shuffled-index"], root=tmp_path)
    before = times()
    assert materialise(RECIPES["llama-f32-2"], ("shuffled-index",), root=tmp_path) == first
    assert times() == before
    assert first.name == "checkpoint"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_nothing(
    error: type[BaseException],
    plant: Callable[[Callable[[Path], None]], None],
    tmp_path: Path,
) -> None:
    def fail(folder: Path) -> None:
        assert (folder / "model.safetensors").exists()
        raise error

    plant(fail)
    with pytest.raises(error):
        materialise("llama-f32", ["planted"], root=tmp_path)
    assert not list(tmp_path.rglob("*"))


KILLED = """
import os, sys, pathlib
from fixtures import write
from fixtures.faults import Fault
write.FAULTS = {"no-config": Fault("no-config", "", lambda folder: os._exit(7))}
write.materialise("llama-f32", ["no-config"], root=pathlib.Path(sys.argv[1]))
"""


def test_a_killed_writer_leaves_no_entry_and_does_not_hinder_the_next(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], cwd=REPOSITORY, check=False)
    assert killed.returncode == 7
    assert all(path.name.endswith(".partial") for path in tmp_path.iterdir())
    folder = materialise("llama-f32", ["no-config"], root=tmp_path)
    assert [path.name for path in folder.iterdir()] == ["model.safetensors"]


def test_writers_at_once_agree(
    plant: Callable[[Callable[[Path], None]], None], tmp_path: Path
) -> None:
    barrier = Barrier(6)

    def meet(folder: Path) -> None:
        barrier.wait(10)  # by now every writer has looked for the entry and found none

    plant(meet)

    def write_one(_: int) -> Path:
        return materialise("llama-f32-3", ["planted"], root=tmp_path)

    with ThreadPoolExecutor(6) as pool:
        folders = set(pool.map(write_one, range(6)))
    (folder,) = folders
    assert digest(folder) == digest(materialise("llama-f32-3", root=tmp_path / "alone"))
    assert {path.name for path in tmp_path.iterdir()} == {folder.parent.name, "alone"}


def test_a_rename_that_fails_for_another_reason_is_raised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError):
        materialise("llama-f32", root=tmp_path)


def test_entries_are_named_for_people_and_by_all_that_they_hold(tmp_path: Path) -> None:
    recipe = Recipe("a b/c", generation_config={"eos_token_id": 5})
    variants: list[tuple[Recipe, list[str]]] = [
        (recipe, []),
        (recipe, ["no-config"]),
        (recipe, ["no-config", "missing-key"]),
        (recipe, ["missing-key", "no-config"]),
        (replace(recipe, seed=1), []),
        (replace(recipe, geometry=Geometry(num_hidden_layers=2)), []),
        (replace(recipe, generation_config={"eos_token_id": 6}), []),
    ]
    names = [materialise(r, faults, root=tmp_path).parent.name for r, faults in variants]
    assert len(set(names)) == len(variants)
    assert names[2].startswith("a-b-c+no-config+missing-key-")


def test_names_stay_within_what_file_systems_allow(tmp_path: Path) -> None:
    recipe, faults = Recipe("long" * 100), ["shuffled-index", "no-config"]
    recipe = replace(recipe, shards=2)
    one, other = (materialise(recipe, order, root=tmp_path) for order in (faults, faults[::-1]))
    assert one.is_dir() and other.is_dir()
    assert one != other


def test_the_writer_version_is_part_of_the_entry(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = materialise("llama-f32", root=tmp_path)
    monkeypatch.setattr(write, "WRITER_VERSION", write.WRITER_VERSION + 1)
    assert materialise("llama-f32", root=tmp_path) != before


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"FROM_PRETRAINED_CONFORMANCE_CACHE": "own", "XDG_CACHE_HOME": "xdg"}, "own/fixtures"),
        ({"XDG_CACHE_HOME": "xdg"}, "xdg/from-pretrained-conformance/fixtures"),
        ({}, "home/.cache/from-pretrained-conformance/fixtures"),
    ],
    ids=["own", "xdg", "home"],
)
def test_where_the_cache_is(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("FROM_PRETRAINED_CONFORMANCE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, folder in {**environment, "HOME": "home"}.items():
        monkeypatch.setenv(name, str(tmp_path / folder))
    assert materialise("llama-f32").parent.parent == tmp_path / expected


def test_a_relative_xdg_cache_home_is_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FROM_PRETRAINED_CONFORMANCE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert materialise("llama-f32").is_relative_to(tmp_path / ".cache")


def test_unknown_names_are_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no recipe is named 'llama'; there are: llama-f32, "):
        materialise("llama", root=tmp_path)
    with pytest.raises(ValueError, match=r"no fault is named 'broken'; there are: .*no-weights, "):
        materialise("llama-f32", ["broken"], root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_digest_sees_names_bytes_and_folders(tmp_path: Path) -> None:
    def digest_of(files: dict[str, str]) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return digest(folder)

    same = digest_of({"a": "1", "b": "2"})
    assert same == digest_of({"b": "2", "a": "1"})
    others = [{"a": "2", "b": "1"}, {"a": "1"}, {"a": "1b2"}, {"a": "1", "c/b": "2"}, {"a1b": "2"}]
    assert len({same, *map(digest_of, others)}) == len(others) + 1


# --- faults ---

# The files that each fault changes, adds or removes in llama-f32-2.
INDEX = "model.safetensors.index.json"
FIRST_OF_TWO = "model-00001-of-00002.safetensors"
BOTH = {FIRST_OF_TWO, LAST_OF_TWO}
SINGLE = "model.safetensors"
PICKLED = {
    "pytorch_model-00001-of-00002.bin",
    "pytorch_model-00002-of-00002.bin",
    "pytorch_model.bin.index.json",
}
OF_THE_INDEX = (
    "index-metadata-empty",
    "index-size-wrong",
    "index-size-no-number",
    "index-names-nothing",
    "index-names-null",
    "index-names-number",
    "index-names-folder",
    "index-names-absolute",
    "index-names-drive",
    *(f"index-names-{name}" for name in NAMES),
)
REPLACING_THE_INDEX = (
    *(f"index-{name}" for name in CONTENTS),
    "index-ends-in-a-hole",
    "index-is-a-folder",
    "index-is-a-loop",
    "index-is-a-device",
    "index-is-unreadable",
)
OF_THE_CONFIG_FILE = (
    *("config-is-empty", "config-is-a-list", "config-is-not-utf8", "config-is-nested"),
    *("config-ends-in-a-hole", "config-is-a-folder", "config-is-a-loop", "config-is-a-device"),
    "config-is-unreadable",
)
IN_PLACE_OF_A_SHARD = (
    *("weights-is-a-folder", "weights-is-a-loop", "weights-is-a-device", "weights-is-unreadable"),
)
IN_PLACE_OF_GENERATION = tuple(f"generation-config-{name}" for name in DAMAGES)
IN_PLACE_OF_A_PICKLE = tuple(f"pickle-{name}" for name in DAMAGES)
OF_A_PICKLE = (
    "pickled-views",
    "pickled-transposed",
    "pickled-parameters",
    "pickled-beside-numbers",
    "pickled-beside-a-fraction",
    "pickled-beside-sparse",
    "pickled-nested",
    "pickled-empty",
    "pickled-program-legacy",
    "pickled-program-bare",
    "pickled-nothing",
    "pickled-list",
    "pickled-directory-flipped",
    "pickled-of-two-disks",
    "pickled-packed",
)
NEEDS_NORM = (
    "header-not-utf8",
    "header-utf16",
    "header-nested",
    "header-long-number",
    "header-no-object",
    "header-key-twice",
    "entry-offsets-reversed",
    "entry-offsets-huge",
    "entry-offsets-no-numbers",
    "entry-shape-wraps",
    "entry-dtype-no-name",
    "entry-dtype-small-letters",
    "entry-no-object",
    "flipped-bit-in-a-weight",
    *(f"flipped-bit-in-the-{name}" for name in FLIPS),
    *(f"cut-{name}" for name in CUTS),
    "entry-overlaps",
    "entry-past-the-end",
    "hole-in-the-payload",
    "entry-shape-too-large",
    "entry-shape-negative",
    "entry-dtype-unknown",
    "entry-without-offsets",
)
OF_ANY_FILE = (
    *("empty-file", "header-length-huge", "header-length-largest", "header-length-zero"),
    *("header-length-of-32-bits", "header-length-of-the-file", "flipped-bit-in-the-length"),
    *("payload-is-a-hole", "dangling-link", *IN_PLACE_OF_A_SHARD),
)
OF_A_HEADER = (*OF_ANY_FILE, *NEEDS_NORM)
# What the safetensors library reads without complaint, or cannot see.
READ_BY_THE_LIBRARY = {
    *("header-key-twice", "flipped-bit-in-a-weight", "flipped-bit-in-the-key"),
    *("payload-is-a-hole", "dangling-link", *IN_PLACE_OF_A_SHARD),
}
TOUCHED: dict[str, set[str]] = {
    "no-weights": {*BOTH, INDEX},
    "no-config": {"config.json"},
    "config-not-json": {"config.json"},
    "absent-shard": {LAST_OF_TWO},
    "truncated-shard": {LAST_OF_TWO},
    "truncated-header": {LAST_OF_TWO},
    "no-format-metadata": BOTH,
    "odd-shard-names": {*BOTH, INDEX, "part 001.safetensors", "part 002.safetensors"},
    "variant-fp16": {
        *BOTH,
        INDEX,
        "model.fp16-00001-of-00002.safetensors",
        "model.fp16-00002-of-00002.safetensors",
        "model.safetensors.index.fp16.json",
    },
    "subfolder": {
        name for file in (*BOTH, INDEX, "config.json") for name in (file, f"inner/{file}")
    },
    "single-beside-index": {"model.safetensors"},
    "bin-beside-safetensors": {"pytorch_model.bin"},
    "index-not-json": {INDEX},
    "index-without-metadata": {INDEX},
    "index-without-weight-map": {INDEX},
    "shuffled-index": {INDEX},
    "unlisted-key": {INDEX},
    "phantom-key": {FIRST_OF_TWO},
    "stray-duplicate": {LAST_OF_TWO},
    "index-leads-outside": {LAST_OF_TWO, INDEX},
    "wrong-shape": {FIRST_OF_TWO, INDEX},
    "short-head": {LAST_OF_TWO, INDEX},
    "short-embedding": {FIRST_OF_TWO, INDEX},
    "unexpected-key": {LAST_OF_TWO, INDEX},
    "missing-key": {LAST_OF_TWO, INDEX},
    "missing-head": {LAST_OF_TWO, INDEX},
    "missing-norm": {LAST_OF_TWO, INDEX},
    "module-prefix": {*BOTH, INDEX},
    "leftover-inv-freq": {*BOTH, INDEX},
    "legacy-norm-names": {LAST_OF_TWO, INDEX},
    "second-prefix": {*BOTH, INDEX},
    "norm-by-two-names": {FIRST_OF_TWO, INDEX},
    "layer-norm-by-two-names": {LAST_OF_TWO, INDEX},
    "legacy-weight-norm-names": {LAST_OF_TWO, INDEX},
    "extra-state": {LAST_OF_TWO, INDEX},
    "longer-extra-state": {LAST_OF_TWO, INDEX},
    "pickled": {*BOTH, INDEX, *PICKLED},
    "pickled-legacy": {*BOTH, INDEX, *PICKLED},
    "pickle-runs-code": {*BOTH, INDEX, "pytorch_model.bin"},
    "pickle-truncated": {*BOTH, INDEX, "pytorch_model.bin"},
    # of a single file, in llama-f32
    "renamed-and-named": {SINGLE, "weights.safetensors", "config.json"},
    "named-outside": {SINGLE, "config.json"},
    "named-as-pickle": {SINGLE, "pytorch_model.bin", "config.json"},
    "index-over-one-shard": {SINGLE, "model-00001-of-00001.safetensors", INDEX},
    # of several
    "index-renamed-and-named": {INDEX, "weights.safetensors.index.json", "config.json"},
    **{key: {"config.json"} for key in CHANGES},
    **{key: {"generation_config.json"} for key in GENERATION},
    **{key: {INDEX} for key in (*OF_THE_INDEX, *REPLACING_THE_INDEX, "index-key-twice")},
    "index-names-a-program": {INDEX, "pytorch_model.bin"},
    **{key: {"config.json"} for key in OF_THE_CONFIG_FILE},
    **{key: {"generation_config.json"} for key in IN_PLACE_OF_GENERATION},
    **{key: {"pytorch_model.bin"} for key in IN_PLACE_OF_A_PICKLE},
    "odd-keys": {LAST_OF_TWO, INDEX},
    "newer-weights-beside": {NEWER},
    **{key: {LAST_OF_TWO} for key in OF_A_HEADER},
    "no-tensors": {*BOTH},
    "norms-signed": {*BOTH, INDEX},
    "norms-unsigned": {*BOTH, INDEX},
    "norms-narrow": {*BOTH, INDEX},
    "norms-complex": {LAST_OF_TWO, INDEX},
    "extra-of-every-dtype": {LAST_OF_TWO, INDEX},
    "integer-first": {FIRST_OF_TWO, INDEX},
    "odd-shapes": {LAST_OF_TWO, INDEX},
    "own-buffers": {LAST_OF_TWO, INDEX},
    "extreme-values": {FIRST_OF_TWO},
    **{key: {*BOTH, INDEX, "pytorch_model.bin"} for key in OF_A_PICKLE},
    "linked": set(),  # what the files hold is the same
    "pickled-one-storage": {SINGLE, "pytorch_model.bin"},
    "bin-beside-index": {"pytorch_model.bin"},
    "bin-variant-fp16": {"pytorch_model.bin", "pytorch_model.fp16.bin"},
}
# Faults of what another recipe or another fault makes.
OF_ANOTHER: dict[str, tuple[str, list[str]]] = {
    "pickled-one-storage": ("llama-untied-equal", []),
    "bin-beside-index": ("llama-f32-2", ["pickled"]),
    "bin-variant-fp16": ("llama-f32", ["pickled"]),
    **dict.fromkeys(IN_PLACE_OF_GENERATION, ("llama-generation", [])),
    **dict.fromkeys(IN_PLACE_OF_A_PICKLE, ("llama-f32", ["pickled"])),
}
OF_A_SINGLE_FILE = {
    name
    for name, touched in TOUCHED.items()
    if SINGLE in touched and not touched & BOTH and name != "single-beside-index"
}


def contents(folder: Path) -> dict[str, bytes]:
    """Of a file that may be read by nobody, that: root could read it, and others not."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.is_char_device()]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        if path.stat().st_mode & 0o400
        else b"-"
        for path in paths
    }


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_touches_the_files_that_it_should(name: str, root: Path) -> None:
    recipe = "llama-f32" if name in OF_A_SINGLE_FILE else "llama-f32-2"
    recipe, first = OF_ANOTHER.get(name, (recipe, []))
    good, bad = (materialise(recipe, faults, root=root) for faults in (first, [*first, name]))
    before, after = contents(good), contents(bad)
    touched = {file for file in {*before, *after} if before.get(file) != after.get(file)}
    assert touched == TOUCHED[name]
    if not any(path.is_file() and not path.stat().st_mode & 0o400 for path in bad.iterdir()):
        assert (digest(good) != digest(bad)) == bool(touched)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_and_stated(name: str) -> None:
    assert FAULTS[name].name == name
    assert len(FAULTS[name].statement) > 15 and "\n" not in FAULTS[name].statement


UNSUITABLE = {
    "no-weights": ("llama-f32", ["no-weights"], "has no weight files"),
    "no-config": ("llama-f32", ["no-config"], "has no config.json"),
    "config-not-json": ("llama-f32", ["no-config"], "has no config.json"),
    "absent-shard": ("llama-f32-2", ["absent-shard"], f"has no shard {LAST_OF_TWO}"),
    "truncated-shard": ("llama-f32", ["no-weights"], "has no safetensors weights"),
    "truncated-header": ("llama-f32", ["truncated-header"], "already cut short"),
    "no-format-metadata": ("llama-f32", ["no-format-metadata"], "no header has metadata"),
    "variant-fp16": ("llama-f32", ["variant-fp16"], "do not have their usual names"),
    "subfolder": ("llama-f32", ["subfolder"], "no files to move"),
    "bin-beside-safetensors": ("llama-f32", ["bin-beside-safetensors"], "already there"),
    "single-beside-index": ("llama-f32-2", ["single-beside-index"], "already there"),
    "index-without-metadata": ("llama-f32-2", ["index-without-metadata"], "has no metadata"),
    "index-without-weight-map": ("llama-f32-2", ["index-not-json"], "not JSON"),
    "shuffled-index": ("llama-f32-2", ["index-without-weight-map"], "has no weight map"),
    "unlisted-key": ("llama-f32-2", ["unlisted-key"], "does not list model.norm.weight"),
    "phantom-key": ("llama-f32-2", ["phantom-key"], "holds no model.layers.0.mlp.gate_proj"),
    "odd-shard-names": ("llama-f32-2", ["index-without-weight-map"], "no weight map"),
    "stray-duplicate": ("llama-f32-2", ["truncated-shard"], "shorter than its header says"),
    "index-leads-outside": ("llama-f32-3", ["index-leads-outside"], "already there"),
    "wrong-shape": ("llama-base", [], "holds no model.layers.0.mlp.up_proj.weight"),
    "short-head": ("llama-tied-embedding", [], "holds no lm_head.weight"),
    "short-embedding": ("llama-tied-head", [], "holds no model.embed_tokens.weight"),
    "unexpected-key": ("llama-f32", ["unexpected-key"], "already holds"),
    "missing-key": ("llama-base", [], "holds no model.layers.1.self_attn.q_proj.weight"),
    "missing-head": ("llama-tied-embedding", [], "holds no lm_head.weight"),
    "missing-norm": ("llama-f32", ["missing-norm"], "holds no model.norm.weight"),
    "module-prefix": ("llama-f32", ["truncated-header"], "shorter than its header"),
    "leftover-inv-freq": ("llama-base", [], "holds no model.layers.0.self_attn.q_proj.weight"),
    "legacy-norm-names": ("llama-f32", ["legacy-norm-names"], "already holds"),
    "second-prefix": ("llama-f32", ["truncated-header"], "shorter than its header"),
    "norm-by-two-names": ("llama-f32", ["missing-norm"], "holds no model.norm.weight"),
    "layer-norm-by-two-names": ("llama-f32", ["legacy-norm-names"], "already holds"),
    "legacy-weight-norm-names": ("llama-f32", ["legacy-weight-norm-names"], "already holds"),
    "extra-state": ("llama-f32", ["extra-state"], "already holds"),
    "longer-extra-state": ("llama-f32", ["extra-state"], "already holds"),
    "pickled": ("llama-f32", ["no-weights"], "has no safetensors weights"),
    "pickled-legacy": ("llama-f32", ["no-weights"], "has no safetensors weights"),
    "pickle-runs-code": ("llama-f32", ["no-weights"], "has no safetensors weights"),
    "pickle-truncated": ("llama-f32", ["no-weights"], "has no safetensors weights"),
    "renamed-and-named": ("llama-f32-2", [], "has no model.safetensors"),
    "named-outside": ("llama-f32-2", [], "has no model.safetensors"),
    "named-as-pickle": ("llama-f32-2", [], "has no model.safetensors"),
    "index-over-one-shard": ("llama-f32-2", [], "has no model.safetensors"),
    "bin-beside-index": ("llama-f32-2", [], "has no pickled shards"),
    "bin-variant-fp16": ("llama-f32-2", ["pickled"], "has no pytorch_model.bin"),
    "linked": ("llama-f32", ["subfolder"], "no files to link"),
    "pickled-one-storage": ("llama-f32", [], "are not equal"),
    **dict.fromkeys(CHANGES, ("llama-f32", ["no-config"], "has no config.json")),
    **dict.fromkeys(GENERATION, ("llama-generation", [], "is already there")),
    **dict.fromkeys(OF_THE_INDEX, ("llama-f32-2", ["index-without-weight-map"], "no weight map")),
    **dict.fromkeys(NEEDS_NORM, ("llama-f32", ["missing-norm"], "holds no model.norm.weight")),
    **dict.fromkeys(OF_A_PICKLE, ("llama-f32", ["no-weights"], "has no safetensors weights")),
    **dict.fromkeys(OF_ANY_FILE, ("llama-f32-2", ["absent-shard"], f"has no shard {LAST_OF_TWO}")),
    "newer-weights-beside": ("llama-f32-2", ["absent-shard"], f"has no shard {LAST_OF_TWO}"),
    "odd-keys": ("llama-f32", ["odd-keys"], "already holds"),
    "index-key-twice": ("llama-f32-2", ["unlisted-key"], "does not list model.norm.weight"),
    "index-names-a-program": ("llama-f32-2", ["index-without-weight-map"], "no weight map"),
    **dict.fromkeys(OF_THE_CONFIG_FILE, ("llama-f32", ["no-config"], "has no config.json")),
    **dict.fromkeys(IN_PLACE_OF_GENERATION, ("llama-f32", [], "has no generation_config.json")),
    **dict.fromkeys(IN_PLACE_OF_A_PICKLE, ("llama-f32", [], "has no pytorch_model.bin")),
    "no-tensors": ("llama-f32", ["no-weights"], "has no safetensors weights"),
    **dict.fromkeys(
        [f"norms-{kind}" for kind in KINDS],
        ("llama-f32", ["missing-norm"], "holds no model.norm.weight"),
    ),
    "extra-of-every-dtype": ("llama-f32", ["extra-of-every-dtype"], "already holds"),
    "integer-first": ("llama-f32", ["integer-first"], "already holds"),
    "odd-shapes": ("llama-f32", ["odd-shapes"], "already holds"),
    "own-buffers": ("llama-f32", ["own-buffers"], "already holds"),
    "extreme-values": ("llama-untied-head", [], "holds no model.embed_tokens.weight"),
}
NEEDS_INDEX = [
    "absent-shard",
    "odd-shard-names",
    "single-beside-index",
    "index-not-json",
    "index-without-metadata",
    "index-without-weight-map",
    "shuffled-index",
    "unlisted-key",
    "phantom-key",
    "stray-duplicate",
    "index-leads-outside",
    "index-renamed-and-named",
    *REPLACING_THE_INDEX,
]


def test_every_fault_has_an_unsuitable_checkpoint() -> None:
    assert {*UNSUITABLE, *NEEDS_INDEX} == FAULTS.keys() == TOUCHED.keys()


@pytest.mark.parametrize("name", UNSUITABLE)
def test_an_unsuitable_checkpoint_is_refused_by_name(name: str, root: Path) -> None:
    recipe, before, reason = UNSUITABLE[name]
    with pytest.raises(ValueError, match=f"fault '{name}' does not suit '{recipe}': .*{reason}"):
        materialise(recipe, [*before, name], root=root)


@pytest.mark.parametrize("name", NEEDS_INDEX)
def test_a_single_file_has_no_index_to_damage(name: str, root: Path) -> None:
    with pytest.raises(ValueError, match="the checkpoint has no index"):
        materialise("llama-f32", [name], root=root)


@pytest.mark.parametrize("name", NEEDS_INDEX)
def test_a_refused_checkpoint_is_left_as_it_was(name: str, root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(materialise("llama-f32", root=root), folder)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="the checkpoint has no index"):
        FAULTS[name].apply(folder)
    assert contents(tmp_path) == before


def test_stray_duplicate_needs_a_later_shard(root: Path) -> None:
    late = Recipe("late", Geometry(vocab_size=4096), shards=2, stored="embedding")
    assert weight_map(materialise(late, root=root))[EMBEDDING] == FIRST_OF_TWO
    with pytest.raises(ValueError, match="no shard comes after"):
        materialise(late, ["stray-duplicate"], root=root)


@pytest.mark.parametrize(
    ("fault", "lost", "gained"),
    [
        ("unexpected-key", set(), {"model.layers.0.extra.weight"}),
        ("missing-key", {"model.layers.1.self_attn.q_proj.weight"}, set()),
        ("missing-head", {HEAD}, set()),
        ("missing-norm", {"model.norm.weight"}, set()),
        ("leftover-inv-freq", set(), set(INV_FREQ)),
        ("wrong-shape", set(), set()),
        ("short-head", set(), set()),
        ("short-embedding", set(), set()),
        ("odd-shard-names", set(), set()),
        ("no-format-metadata", set(), set()),
        ("shuffled-index", set(), set()),
    ],
)
@pytest.mark.parametrize("recipe", ["llama-f32-3", "llama-bf16-2"])
def test_faults_of_keys_keep_index_and_shards_consistent(
    fault: str, lost: set[str], gained: set[str], recipe: str, root: Path
) -> None:
    folder = materialise(recipe, [fault], root=root)
    held, index = read_back(folder), json.loads((folder / INDEX).read_text())
    assert held.keys() == (stored_tensors(RECIPES[recipe]).keys() - lost) | gained
    for key, file in index["weight_map"].items():
        with safetensors.safe_open(folder / file, "pt") as shard:
            assert key in shard.keys()  # noqa: SIM118
    assert index["weight_map"].keys() == held.keys()
    size = sum(len(bits(tensor)) for tensor in held.values())
    assert index["metadata"]["total_size"] == size


@pytest.mark.parametrize("recipe", ["llama-f32", "llama-f32-3"])
def test_module_prefix_is_on_every_key(recipe: str, root: Path) -> None:
    folder = materialise(recipe, ["module-prefix"], root=root)
    expected = {f"module.{key}": t for key, t in stored_tensors(RECIPES[recipe]).items()}
    assert_same(read_back(folder), expected)
    if RECIPES[recipe].shards > 1:
        assert list(weight_map(folder)) == list(expected)


def test_a_fault_leaves_all_other_tensors_as_they_were(root: Path) -> None:
    key = "model.layers.0.mlp.up_proj.weight"
    held = read_back(materialise("llama-mixed-2", ["wrong-shape"], root=root))
    expected = stored_tensors(RECIPES["llama-mixed-2"])
    expected[key] = expected[key][:-1]
    assert_same(held, expected)


def test_stray_duplicate_has_other_values_and_the_index_names_the_first(root: Path) -> None:
    key = "model.layers.0.input_layernorm.weight"
    folder = materialise("llama-f32-3", ["stray-duplicate"], root=root)
    shards = [safetensors.torch.load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    assert [key in shard for shard in shards] == [True, False, True]
    assert torch.equal(shards[0][key], stored_tensors(RECIPES["llama-f32-3"])[key])
    assert not (shards[0][key] == shards[2][key]).any()
    assert weight_map(folder)[key] == "model-00001-of-00003.safetensors"


def test_phantom_and_unlisted_keys_are_on_one_side_only(root: Path) -> None:
    phantom = materialise("llama-f32-2", ["phantom-key"], root=root)
    key = "model.layers.0.mlp.gate_proj.weight"
    assert weight_map(phantom).keys() - read_back(phantom).keys() == {key}
    unlisted = materialise("llama-f32-2", ["unlisted-key"], root=root)
    assert read_back(unlisted).keys() - weight_map(unlisted).keys() == {"model.norm.weight"}


def test_the_path_outside_stays_inside_the_cache_entry(root: Path) -> None:
    folder = materialise("llama-f32-2", ["index-leads-outside"], root=root)
    assert weight_map(folder)[HEAD] == "../outside.safetensors"
    assert {path.name for path in folder.parent.iterdir()} == {"checkpoint", "outside.safetensors"}
    outside = safetensors.torch.load_file(folder / "../outside.safetensors")
    assert_same(read_back(folder) | outside, stored_tensors(RECIPES["llama-f32-2"]))


@pytest.mark.parametrize("fault", ["single-beside-index", "bin-beside-safetensors"])
def test_weights_beside_have_all_keys_and_no_equal_tensor(fault: str, root: Path) -> None:
    folder = materialise("llama-mixed-2", [fault], root=root)
    if fault == "single-beside-index":
        beside = safetensors.torch.load_file(folder / "model.safetensors")
    else:
        beside = torch.load(folder / "pytorch_model.bin", weights_only=True)
    expected = stored_tensors(RECIPES["llama-mixed-2"])
    assert beside.keys() == expected.keys()
    for key, tensor in expected.items():
        assert beside[key].dtype == tensor.dtype
        assert (beside[key] != tensor).float().mean() > 0.99, key


@pytest.mark.parametrize("recipe", ["llama-f32", "llama-f32-2"])
@pytest.mark.parametrize("fault", ["truncated-shard", "truncated-header"])
def test_truncated_files_end_in_the_part_they_say(fault: str, recipe: str, root: Path) -> None:
    good, bad = (materialise(recipe, faults, root=root) for faults in ([], [fault]))
    last = max(good.glob("*.safetensors")).name
    before, after = (good / last).read_bytes(), (bad / last).read_bytes()
    header_end = 8 + int.from_bytes(before[:8], "little")
    assert before.startswith(after)
    if fault == "truncated-header":
        assert 8 < len(after) < header_end
    else:
        assert header_end < len(after) < len(before)


@pytest.mark.parametrize(
    ("fault", "file"), [("config-not-json", "config.json"), ("index-not-json", INDEX)]
)
def test_files_that_are_not_json_are_not(fault: str, file: str, root: Path) -> None:
    text = (materialise("llama-f32-2", [fault], root=root) / file).read_text()
    assert text.startswith("{")
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)


def test_an_index_lacks_one_field(root: Path) -> None:
    def fields(fault: str) -> set[str]:
        return set(json.loads((materialise("llama-f32-2", [fault], root=root) / INDEX).read_text()))

    assert fields("index-without-metadata") == {"weight_map"}
    assert fields("index-without-weight-map") == {"metadata"}


def test_links_lead_to_a_folder_beside(root: Path) -> None:
    folder = materialise("llama-f32-2", ["linked"], root=root)
    assert {path.name for path in folder.parent.iterdir()} == {"checkpoint", "blobs"}
    assert all(path.is_symlink() and path.is_file() for path in folder.iterdir())
    path = materialise("llama-f32", ["dangling-link"], root=root) / SINGLE
    assert path.is_symlink()
    assert not path.exists()


@pytest.mark.parametrize("name", sorted({*OF_A_HEADER} - READ_BY_THE_LIBRARY))
def test_the_safetensors_library_refuses_a_damaged_header(name: str, root: Path) -> None:
    path = materialise("llama-f32", [name], root=root) / SINGLE
    with pytest.raises(safetensors.SafetensorError):
        safetensors.torch.load_file(path)


def test_a_key_twice_is_nothing_else_than_that(root: Path) -> None:
    """The safetensors library takes the last of the two."""
    held = read_back(materialise("llama-f32", ["header-key-twice"], root=root))
    assert_same(held, stored_tensors(RECIPES["llama-f32"]))


def test_a_header_keeps_its_payload(root: Path) -> None:
    def payload(*faults: str) -> bytes:
        data = (materialise("llama-f32", faults, root=root) / SINGLE).read_bytes()
        return data[8 + int.from_bytes(data[:8], "little") :]

    assert payload() == payload("entry-overlaps") == payload("header-key-twice")


@pytest.mark.parametrize("kind", KINDS)
def test_norms_are_small_integers_of_every_dtype_that_is_named(kind: str, root: Path) -> None:
    held, _ = read_safetensors(materialise("llama-f32", [f"norms-{kind}"], root=root) / SINGLE)
    changed = [tensor for tensor in held.values() if tensor.dtype != torch.float32]
    assert {SAFETENSORS_DTYPES[tensor.dtype] for tensor in changed} == set(KINDS[kind])
    for tensor in changed:
        values = {1} if tensor.dtype == torch.bool else {1, 2, 3}
        assert set(tensor.to(torch.complex64).real.int().tolist()) == values


def test_an_extra_key_has_every_dtype_of_the_writer(root: Path) -> None:
    folder = materialise("llama-f32", ["extra-of-every-dtype"], root=root)
    held, _ = read_safetensors(folder / SINGLE)
    extra = {key: tensor.dtype for key, tensor in held.items() if key.startswith("extra.")}
    assert extra == {f"extra.{name}": dtype for dtype, name in SAFETENSORS_DTYPES.items()}


def test_pickles_of_odd_forms_hold_the_same_values(root: Path) -> None:
    for name in ("pickled-views", "pickled-transposed", "pickled-parameters"):
        folder = materialise("llama-f32", [name], root=root)
        held = torch.load(folder / "pytorch_model.bin", weights_only=True)
        assert_same(held, stored_tensors(RECIPES["llama-f32"]))
        storages = {tensor.untyped_storage().data_ptr() for tensor in held.values()}
        assert (len(storages) == 1) == (name == "pickled-views")
        odd = [tensor for tensor in held.values() if not tensor.is_contiguous()]
        assert bool(odd) == (name == "pickled-transposed")
        own = [tensor for tensor in held.values() if isinstance(tensor, torch.nn.Parameter)]
        assert len(own) == (len(held) if name == "pickled-parameters" else 0)
        assert not any(tensor.requires_grad for tensor in held.values())


def test_extreme_values_are_in_one_row(root: Path) -> None:
    held = read_back(materialise("llama-f32", ["extreme-values"], root=root))
    expected = stored_tensors(RECIPES["llama-f32"])
    row = held[EMBEDDING][0]
    assert row.isnan().sum() == 1
    assert row.isinf().sum() == 2
    assert row.to(torch.float16).isinf().sum() == 4, "two that float16 makes infinite"
    assert ((row != 0) & (row.abs() < torch.finfo(torch.float32).tiny)).sum() == 2
    held[EMBEDDING][0] = expected[EMBEDDING][0]
    assert_same(held, expected)


def test_headers_lack_metadata(root: Path) -> None:
    for faults, expected in ([], {"format": "pt"}), (["no-format-metadata"], None):
        for path in materialise("llama-f32-2", faults, root=root).glob("*.safetensors"):
            with safetensors.safe_open(path, "pt") as shard:
                assert shard.metadata() == expected


def test_shuffled_index_is_in_reverse(root: Path) -> None:
    good, bad = (materialise("llama-f32-3", f, root=root) for f in ([], ["shuffled-index"]))
    assert list(weight_map(bad).items()) == list(reversed(weight_map(good).items()))


def test_leftover_inv_freq_is_float32_and_not_the_models_own(root: Path) -> None:
    held = read_back(materialise("llama-bf16-2", ["leftover-inv-freq"], root=root))
    own = torch.tensor([10000.0 ** (-2 * i / 8) for i in range(4)])
    for key in INV_FREQ:
        assert held[key].dtype == torch.float32
        assert held[key].shape == own.shape
        assert not (held[key] == own).any()


def test_variant_of_a_single_file(root: Path) -> None:
    folder = materialise("llama-f16", ["variant-fp16"], root=root)
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.fp16.safetensors"}


def test_faults_compose_in_order(root: Path) -> None:
    faults = ["odd-shard-names", "no-format-metadata", "missing-norm", "subfolder"]
    folder = materialise("llama-f32-2", faults, root=root)
    held = read_back(folder / "inner")
    assert held.keys() == stored_tensors(RECIPES["llama-f32-2"]).keys() - {"model.norm.weight"}
    assert weight_map(folder / "inner").keys() == held.keys()


# --- the room ---


OWN_ROOMS = (
    *("__init__", "recipes", "files", "edit", "write", "registry", "faults"),
    *("config_faults", "cut_faults", "file_faults", "header_faults", "index_faults"),
    *("pickle_faults", "value_faults"),
)


def test_the_package_imports_nothing_but_torch_and_the_standard_library() -> None:
    allowed = {*sys.stdlib_module_names, "torch", "fixtures"}
    for name in OWN_ROOMS:
        path = REPOSITORY / "fixtures" / f"{name}.py"
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or "fixtures"]
            assert {module.split(".")[0] for module in modules} <= allowed, path
