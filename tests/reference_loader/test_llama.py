"""The plain Llama agrees with stock's, and would not if either were wrong.

Bounds are on the largest difference over the largest absolute value of a tensor. In float64 stock
still takes norms, softmax and rotary angles in float32, so it is compared twice: as it is, and with
those casts lifted, where nothing but the order of sums is left to differ.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import LlamaConfig, LlamaForCausalLM

from reference_loader.llama import Llama, LlamaOutput, RMSNorm, rope_frequencies

# Largest seen, eager and sdpa, torch 2.13 on a CPU: 4.7e-15, 1.4e-6 and 1.5e-6 over the named
# configs below; 1.4e-14 and 9.8e-6 (lifted, float32) over 300 random ones, some badly conditioned.
LIFTED_FLOAT64 = 1e-13
STOCK_FLOAT64 = 5e-6
FLOAT32 = 5e-6
RANDOM_FLOAT32 = 3e-5

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,  # so short that all three bands of the formula occur
}


class InFloat64(TorchFunctionMode):
    """Lifts stock's casts to float32: inside, whoever asks for float32 is given float64."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        lift = {torch.float32: torch.float64}
        if func is Tensor.float:
            func = Tensor.double
        args = [lift.get(arg, arg) if isinstance(arg, torch.dtype) else arg for arg in args]
        kwargs = dict(kwargs or {})
        if kwargs.get("dtype") in lift:
            kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)


def config_of(**changes: Any) -> dict[str, Any]:
    """A tiny grouped-query Llama's config.json, in the new field names."""
    return {
        "model_type": "llama",
        "vocab_size": 61,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "dtype": "float32",
        **changes,
    }


def in_old_names(config: dict[str, Any]) -> dict[str, Any]:
    """The same config as releases before 5 wrote it."""
    old = {key: value for key, value in config.items() if key not in ("rope_parameters", "dtype")}
    scaling = dict(config["rope_parameters"])
    old["rope_theta"] = scaling.pop("rope_theta")
    old["rope_scaling"] = None if scaling["rope_type"] == "default" else scaling
    return old | {"torch_dtype": config["dtype"]}


NAMED = {
    "grouped": config_of(),
    "multi-head": config_of(num_key_value_heads=None),
    "one-key-head": config_of(num_key_value_heads=1),
    "wide-heads": config_of(head_dim=20),
    "tied": config_of(tie_word_embeddings=True),
    "biased": config_of(attention_bias=True, mlp_bias=True),
    "linear": config_of(
        rope_parameters={"rope_type": "linear", "rope_theta": 500.0, "factor": 2.5}
    ),
    "llama3": config_of(rope_parameters={**LLAMA3, "rope_theta": 500000.0}),
}
NAMED |= {f"{name}-old": in_old_names(NAMED[name]) for name in ("grouped", "linear", "llama3")}


def random_config(seed: int) -> dict[str, Any]:
    """Any mix of what is supported."""
    pick = random.Random(seed)
    heads, head_dim = pick.choice([1, 2, 4, 6]), pick.choice([2, 4, 8, 16])
    ropes: list[dict[str, Any]] = [{"rope_type": "default"}, {"rope_type": "linear", "factor": 3.0}]
    rope = pick.choice([*ropes, LLAMA3])
    config = config_of(
        vocab_size=pick.randint(5, 90),
        hidden_size=heads * head_dim,
        intermediate_size=pick.randint(1, 70),
        num_hidden_layers=pick.randint(1, 4),
        num_attention_heads=heads,
        num_key_value_heads=pick.choice([k for k in range(1, heads + 1) if heads % k == 0]),
        head_dim=pick.choice([None, 4, 12]),
        rms_norm_eps=pick.choice([1e-6, 1e-5, 1e-2]),
        tie_word_embeddings=pick.random() < 0.5,
        attention_bias=pick.random() < 0.5,
        mlp_bias=pick.random() < 0.5,
        rope_parameters={**rope, "rope_theta": pick.choice([100.0, 10000.0, 500000.0])},
    )
    return in_old_names(config) if pick.random() < 0.5 else config


def stock_of(
    config: dict[str, Any], attention: str = "sdpa", dtype: torch.dtype = torch.float32
) -> Any:
    """Stock's model, every parameter random, norms and biases too, so that each one matters."""
    fields = json.loads(json.dumps(config))  # LlamaConfig keeps and changes the dicts it is given
    stock = LlamaForCausalLM(LlamaConfig(**fields, attn_implementation=attention)).to(dtype).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in stock.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(1 + 0.3 * noise if name.endswith("norm.weight") else 0.25 * noise)
    return stock


def judge_of(stock: Any, config: dict[str, Any]) -> Llama:
    judge = Llama.from_config(config).to(stock.dtype)
    judge.load_state_dict(stock.state_dict())
    return judge


def tokens(config: dict[str, Any], length: int = 17) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(config["vocab_size"], (2, length), generator=generator)


def difference(stock: Any, judge: Llama, input_ids: Tensor) -> float:
    """The largest relative difference between the two, over logits and every hidden state."""
    with torch.no_grad():
        theirs = stock(input_ids, output_hidden_states=True)
        ours = judge(input_ids)
    assert len(ours.hidden_states) == len(theirs.hidden_states)
    pairs = zip(
        (*ours.hidden_states, ours.logits), (*theirs.hidden_states, theirs.logits), strict=True
    )
    return max(relative(a, b) for a, b in pairs)


def relative(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    return float((ours - theirs).abs().max() / theirs.abs().max())


def measure(config: dict[str, Any], attention: str, dtype: torch.dtype, lifted: bool) -> float:
    with InFloat64() if lifted else nullcontext():
        stock = stock_of(config, attention, dtype)
        judge = judge_of(stock, config)
        return max(difference(stock, judge, tokens(config, length)) for length in (1, 2, 40))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models this tiny gain nothing from threads, and lose much where others use the cores too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["eager", "sdpa"])
def attention(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


@pytest.mark.parametrize("name", NAMED)
def test_agrees_with_stock_in_float32(name: str, attention: str) -> None:
    assert measure(NAMED[name], attention, torch.float32, lifted=False) <= FLOAT32


@pytest.mark.parametrize("name", NAMED)
def test_agrees_with_stock_in_float64(name: str, attention: str) -> None:
    assert measure(NAMED[name], attention, torch.float64, lifted=False) <= STOCK_FLOAT64


@pytest.mark.parametrize("name", NAMED)
def test_agrees_with_stock_to_rounding_where_its_casts_are_lifted(
    name: str, attention: str
) -> None:
    assert measure(NAMED[name], attention, torch.float64, lifted=True) <= LIFTED_FLOAT64


@pytest.mark.parametrize("seed", range(12))
def test_agrees_with_stock_on_random_configs(seed: int, attention: str) -> None:
    config = random_config(seed)
    assert measure(config, attention, torch.float64, lifted=True) <= LIFTED_FLOAT64
    assert measure(config, attention, torch.float32, lifted=False) <= RANDOM_FLOAT32


@pytest.mark.parametrize("name", ["grouped", "tied", "llama3"])
def test_greedy_is_generate_without_sampling(name: str) -> None:
    stock = stock_of(NAMED[name], dtype=torch.float64)
    stock.generation_config.eos_token_id = None  # greedy does not stop
    input_ids = tokens(NAMED[name], 5)
    everything = torch.ones_like(input_ids)
    theirs = stock.generate(
        input_ids, attention_mask=everything, do_sample=False, max_new_tokens=12, pad_token_id=0
    )
    ours = judge_of(stock, NAMED[name]).greedy(input_ids, 12)
    assert ours.dtype == torch.int64
    assert torch.equal(ours, theirs[:, 5:])


def test_greedy_by_no_steps_is_nothing() -> None:
    assert Llama.from_config(config_of()).greedy(tokens(config_of(), 3), 0).shape == (2, 0)


def swap_queries_and_keys(judge: Llama) -> None:
    for layer in judge.model.layers:
        attention: Any = layer.self_attn
        attention.q_proj, attention.k_proj = attention.k_proj, attention.q_proj


def forget_eps(judge: Llama) -> None:
    for module in judge.modules():
        if isinstance(module, RMSNorm):
            module.eps = 0.0


def nudge(judge: Llama) -> None:
    """A millionth of one weight: below what float32 shows, and what the float64 judge is for."""
    with torch.no_grad():
        judge.get_parameter("model.layers.1.mlp.up_proj.weight")[3, 4] *= 1 + 1e-6


def shift_theta(judge: Llama) -> None:
    judge.config["rope_parameters"] = {"rope_type": "default", "rope_theta": 10001.0}


def swap_layers(judge: Llama) -> None:
    first, second, third = judge.model.layers
    judge.model.layers = torch.nn.ModuleList([second, first, third])


@pytest.mark.parametrize(
    "plant", [swap_queries_and_keys, forget_eps, nudge, shift_theta, swap_layers]
)
def test_a_planted_fault_is_seen(plant: Callable[[Llama], None]) -> None:
    config = config_of(num_key_value_heads=4)  # so that queries and keys have the same shape
    with InFloat64():
        stock = stock_of(config, dtype=torch.float64)
        judge = judge_of(stock, config)
        assert difference(stock, judge, tokens(config)) <= LIFTED_FLOAT64
        plant(judge)
        assert difference(stock, judge, tokens(config)) > 100 * LIFTED_FLOAT64


def test_a_coarse_fault_is_seen_in_float32() -> None:
    config = config_of(num_key_value_heads=4)
    stock = stock_of(config)
    for plant in (swap_queries_and_keys, shift_theta, swap_layers):
        judge = judge_of(stock, config)
        plant(judge)
        assert difference(stock, judge, tokens(config)) > 2 * FLOAT32, plant.__name__


def test_names_are_those_of_the_checkpoint() -> None:
    for config in NAMED.values():
        stock = stock_of(config)
        judge = judge_of(stock, config)
        assert list(judge.state_dict()) == list(stock.state_dict())
        assert [n for n, _ in judge.named_parameters()] == [n for n, _ in stock.named_parameters()]
        assert not list(judge.buffers())


def test_a_tied_head_is_the_embeddings_parameter_through_every_move() -> None:
    judge = Llama.from_config(NAMED["tied"])
    assert judge.lm_head.weight is judge.model.embed_tokens.weight
    judge.double()
    assert judge.lm_head.weight is judge.model.embed_tokens.weight
    judge.model.embed_tokens.weight = torch.nn.Parameter(torch.zeros(61, 32))
    judge.tie_weights()
    assert judge.lm_head.weight is judge.model.embed_tokens.weight
    untied = Llama.from_config(NAMED["grouped"])
    untied.tie_weights()
    assert untied.lm_head.weight is not untied.model.embed_tokens.weight


@pytest.mark.parametrize("name", ["grouped", "tied", "llama3"])
def test_made_on_meta_and_filled_by_assignment(name: str) -> None:
    config = NAMED[name]
    stock = stock_of(config, dtype=torch.float64)
    with torch.device("meta"):
        judge = Llama.from_config(config)
    assert all(parameter.is_meta for parameter in judge.parameters())
    for key, parameter in stock.named_parameters():
        module = judge.get_submodule(key.rpartition(".")[0])
        module.weight = torch.nn.Parameter(parameter.detach().clone())
    judge.tie_weights()
    assert difference(stock, judge, tokens(config)) <= STOCK_FLOAT64


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_outputs_are_in_the_dtype_of_the_parameters(dtype: torch.dtype) -> None:
    judge = Llama.from_config(config_of()).to(dtype)
    output: LlamaOutput = judge(tokens(config_of()))
    assert {state.dtype for state in (*output.hidden_states, output.logits)} == {dtype}
    assert output.logits.shape == (2, 17, 61)
    assert [tuple(state.shape) for state in output.hidden_states] == [(2, 17, 32)] * 4


def test_what_comes_later_changes_nothing_before_it() -> None:
    judge = Llama.from_config(config_of()).double()
    input_ids = tokens(config_of())
    changed = input_ids.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 61
    before, after = judge(input_ids).logits, judge(changed).logits
    torch.testing.assert_close(before[:, :-1], after[:, :-1], rtol=0, atol=1e-14)
    assert not torch.allclose(before[:, -1], after[:, -1])


@pytest.mark.parametrize("name", NAMED)
def test_frequencies_are_stocks_to_float32(name: str) -> None:
    ours = rope_frequencies(NAMED[name])
    theirs = stock_of(NAMED[name]).model.rotary_emb.inv_freq
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours.float(), theirs, rtol=5e-7, atol=0)


def test_frequencies_worked_by_hand() -> None:
    plain = config_of(head_dim=4, rope_parameters={"rope_theta": 100.0})
    assert rope_frequencies(plain).tolist() == pytest.approx([1.0, 0.1], rel=1e-15)
    halved = {"type": "linear", "factor": 2.0, "rope_theta": 100.0}
    linear = config_of(head_dim=4, rope_parameters=halved)
    assert rope_frequencies(linear).tolist() == pytest.approx([0.5, 0.05], rel=1e-15)
    with torch.device("meta"):
        assert rope_frequencies(plain).device.type == "cpu"


def test_llama3_reaches_all_three_bands() -> None:
    config = config_of(head_dim=16, rope_parameters={**LLAMA3, "rope_theta": 100.0})
    plain = rope_frequencies(config_of(head_dim=16, rope_parameters={"rope_theta": 100.0}))
    slowed = plain / rope_frequencies(config)
    assert (slowed < 1 + 1e-12).any()
    assert ((slowed > 1.01) & (slowed < 7.99)).any()
    assert (slowed > 8 - 1e-12).any()


@pytest.mark.parametrize(
    ("field", "value", "changes"),
    [
        ("model_type", "mistral", {"model_type": "mistral"}),
        ("hidden_act", "gelu", {"hidden_act": "gelu"}),
        ("rope_type", "yarn", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}),
        ("rope_type", "dynamic", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
        ("factor", None, {"rope_parameters": {"rope_type": "linear"}}),
        ("low_freq_factor", None, {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}),
        ("partial_rotary_factor", 0.5, {"partial_rotary_factor": 0.5}),
        ("num_attention_heads", 5, {"num_attention_heads": 5}),
        ("num_key_value_heads", 3, {"num_key_value_heads": 3}),
        ("head_dim", 7, {"head_dim": 7}),
        ("rope_parameters", {"full": {}}, {"rope_parameters": {"full": {}}}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_is_not_supported_is_refused_by_name(
    field: str, value: object, changes: dict[str, Any]
) -> None:
    with pytest.raises(ValueError) as refusal:
        Llama.from_config(config_of(**changes))
    assert f"{field} = {value!r}" in str(refusal.value)


def test_imports_torch_only() -> None:
    source = (Path(__file__).parents[2] / "reference_loader" / "llama.py").read_text()
    assert "transformers" not in source
