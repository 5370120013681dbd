"""The model without weights. INI-2 to INI-5, TIE-1, STA-1, STA-2."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_module
from transformers import LlamaConfig, LlamaForCausalLM

from conformance.world.memory import resident
from reference_loader.model.skeleton import build, like, put


class Marked(nn.Parameter):
    """A parameter class of a user's."""


class Zoo(nn.Module):
    """One of everything that a constructor may leave behind."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.marked = Marked(torch.ones(4), requires_grad=False)
        self.marked.note = "kept"
        self.listed = nn.ParameterList([nn.Parameter(torch.ones(1)) for _ in range(2)])
        self.counter = nn.Parameter(torch.arange(3), requires_grad=False)
        self.wide = nn.Parameter(torch.ones(2, dtype=torch.float64))
        self.register_parameter("none", None)
        self.register_buffer("scale", torch.linspace(0, 1, 5), persistent=False)
        self.register_buffer("steps", torch.tensor(7))
        self.register_buffer("nothing", None)
        self.plain = torch.full((2,), 3.0)
        self.calls: list[str] = []
        self.register_forward_pre_hook(lambda module, _: module.calls.append("called"))


def test_parameters_are_on_meta_and_buffers_are_real() -> None:
    """INI-2: also a tensor that is neither."""
    model = build(Zoo, torch.float32).model
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert model.scale.tolist() == torch.linspace(0, 1, 5).tolist()
    assert (model.steps.item(), model.plain.tolist()) == (7, [3.0, 3.0])
    assert model.none is None
    assert model.nothing is None


def test_classes_flags_attributes_and_dtypes_survive() -> None:
    """INI-3, INI-5."""
    model = build(Zoo, torch.bfloat16).model
    assert type(model.marked) is Marked
    assert model.marked.note == "kept"
    assert not model.marked.requires_grad
    assert model.linear.weight.requires_grad
    dtypes = (model.linear.weight, model.counter, model.wide, model.marked)
    assert [p.dtype for p in dtypes] == [
        torch.bfloat16,
        torch.int64,
        torch.float64,
        torch.bfloat16,
    ]
    assert len(model._forward_pre_hooks) == 1


def test_slots_are_the_state_dict() -> None:
    """MAP-1: names, kinds, dtypes, shapes; the order is that of registration."""
    skeleton = build(Zoo, torch.float32)
    slots = skeleton.slots
    assert list(slots) == list(Zoo().state_dict())
    assert "scale" not in slots
    assert (slots["steps"].kind, slots["steps"].order) == ("buffer", -1)
    assert (slots["linear.weight"].kind, slots["linear.weight"].shape) == ("parameter", (2, 3))
    orders = [slot.order for slot in slots.values() if slot.kind == "parameter"]
    assert sorted(orders) == list(range(len(orders)))


def test_a_value_that_only_some_parameters_keep() -> None:
    """MIS-1: parameters that are wanted real have the constructor's values."""
    order = build(Zoo, torch.float32).slots["marked"].order
    model = build(Zoo, torch.float32, real={order}).model
    assert model.marked.tolist() == [1.0] * 4
    assert [n for n, p in model.named_parameters() if not p.is_meta] == ["marked"]


def tied_by_attribute(model: nn.Module) -> None:
    model.a, model.b, model.c = (nn.Linear(2, 2, bias=False) for _ in range(3))
    model.b.weight = model.a.weight
    model.c.weight = model.b.weight


def tied_by_module(model: nn.Module) -> None:
    model.a = nn.Linear(2, 2, bias=False)
    model.b = model.c = model.a


def tied_by_one_parameter(model: nn.Module) -> None:
    model.a, model.b, model.c = (nn.Linear(2, 2, bias=False) for _ in range(3))
    shared = nn.Parameter(torch.ones(2, 2))
    model.a.weight = model.b.weight = model.c.weight = shared


def tied_in_a_list(model: nn.Module) -> None:
    shared = nn.Parameter(torch.ones(2, 2))
    model.weights = nn.ParameterList([shared, shared, shared])


def test_a_parameter_of_all_instances_is_another_one_in_each_build() -> None:
    """Each model gets its own stand-in, and the parameter itself is as it was."""
    shared = nn.Parameter(torch.ones(2))

    class Sharing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = shared

    first, second = build(Sharing, torch.float32), build(Sharing, torch.float32)
    assert first.model.bias is not second.model.bias
    assert [built.slots["bias"].order for built in (first, second)] == [0, 0]
    assert vars(shared) == {}
    assert vars(first.model.bias) == vars(second.model.bias)
    assert build(Sharing, torch.float32, real={0}).model.bias is shared


@pytest.mark.parametrize(
    "tie",
    [tied_by_attribute, tied_by_module, tied_by_one_parameter, tied_in_a_list],
)
def test_ties_are_found_by_identity(tie: Callable[[nn.Module], None]) -> None:
    """TIE-1: as the constructor made them, whichever way it did."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            tie(self)
            self.alone = nn.Linear(2, 2)

    (group,) = build(Model, torch.float32).ties
    assert len(group) == 3
    assert not any(name.startswith("alone") for name in group)


def test_equal_values_are_no_tie() -> None:
    """TIE-5."""
    assert build(lambda: nn.Sequential(nn.LayerNorm(2), nn.LayerNorm(2)), torch.float32).ties == ()


class FromWeight(nn.Module):
    """Computes a buffer from a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("copy", self.linear.weight.detach() * 2, persistent=False)


def test_a_buffer_computed_from_a_weight_has_the_constructors_value() -> None:
    """INI-4: the constructor runs once more, with memory; the weight gives its own back."""
    torch.manual_seed(4)
    made = FromWeight()
    torch.manual_seed(4)
    model = build(FromWeight, torch.float32).model
    assert torch.equal(model.copy, made.copy)
    assert model.linear.weight.is_meta


def test_a_hundred_gigabytes_take_none(unchanged: Any, tmp_path: Path) -> None:
    """INI-4: a model larger than any memory here can be planned. One layer is real at a time."""

    class Huge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # torch.empty, as nn.Linear makes it, and untouched: each is 8 GiB of address space
            self.many = nn.ParameterList(
                [nn.Parameter(torch.empty(2**15, 2**16)) for _ in range(13)]
            )

    before = resident("RssAnon")[0]
    with unchanged(tmp_path):
        skeleton = build(Huge, torch.float32)
    assert sum(p.numel() * 4 for p in skeleton.model.parameters()) > 100 * 2**30
    assert resident("RssAnon")[0] - before < 2**24


def test_a_hundred_gigabytes_of_llama_take_none() -> None:
    """INI-4: with the library's own classes, whose constructors initialise."""
    config = LlamaConfig(
        hidden_size=2**13, intermediate_size=2**15, num_hidden_layers=40, vocab_size=2**15
    )
    before = resident("RssAnon")[0]
    skeleton = build(lambda: LlamaForCausalLM(config), torch.float32)
    assert sum(p.numel() * 4 for p in skeleton.model.parameters()) > 100 * 2**30
    assert resident("RssAnon")[0] - before < 2**26


def test_the_process_is_as_before(unchanged: Any, tmp_path: Path) -> None:
    """STA-1, MIS-3: also the generator, though constructors draw from it."""
    with unchanged(tmp_path):
        build(lambda: nn.Sequential(nn.Linear(9, 9), nn.Dropout()), torch.float16)
        build(lambda: nn.Module().register_buffer("b", torch.rand(3)) or nn.Module(), torch.half)


def test_the_process_is_as_before_when_the_constructor_raises(
    unchanged: Any, tmp_path: Path
) -> None:
    """STA-2."""

    def construct() -> nn.Module:
        nn.Linear(9, 9)
        raise LookupError("no")

    with unchanged(tmp_path), pytest.raises(LookupError):
        build(construct, torch.float16)
    assert not nn.Linear(2, 2).weight.is_meta
    assert not torch_module._global_parameter_registration_hooks


def test_the_default_device_does_not_reach_the_buffers() -> None:
    """INI-2, INI-4: a caller inside `torch.device("meta")` still gets real buffers."""
    with torch.device("meta"):
        model = build(Zoo, torch.float32).model
        assert torch.empty(1).is_meta
    assert {b.device.type for b in model.buffers()} == {"cpu"}


class Stem(nn.Linear):
    """Initialises itself in a way of its own."""

    def reset_parameters(self) -> None:
        self.register_buffer("seen", torch.ones(1))


class Layers(nn.Module):
    """What torch initialises by itself, what it does not, and a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.copied = copy.deepcopy(self.linear)
        self.norm = nn.BatchNorm1d(2)
        self.stem = Stem(3, 2)


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The devices on which linear layers were initialised."""
    devices: list[str] = []
    monkeypatch.setattr(
        nn.init, "kaiming_uniform_", lambda tensor, **_: devices.append(tensor.device.type)
    )
    return devices


def test_what_has_no_memory_is_not_initialised(filled: list[str]) -> None:
    """INI-2: torch's own layers are passed over; what is real, and what is another's, is not."""
    layers = build(Layers, torch.float32).model
    assert filled == []
    assert layers.norm.running_var.tolist() == [1.0, 1.0]
    assert layers.stem.seen.tolist() == [1.0]
    build(Layers, torch.float32, real={0})
    assert "cpu" in filled


def test_what_a_constructor_fills_by_hand_is_filled() -> None:
    """INI-2: a buffer has its values; a parameter has no memory for any, and is itself returned."""

    def construct() -> nn.Module:
        module = nn.Linear(3, 2)
        assert nn.init.constant_(module.bias, 1.0) is module.bias
        assert module.weight.data.fill_(1.0).is_meta
        module.register_buffer("named", nn.init.constant_(torch.empty(2), 2.0))
        module.register_buffer("method", torch.empty(2).fill_(3.0))
        return module

    model = build(construct, torch.float32).model
    assert model.bias.is_meta
    assert (model.named.tolist(), model.method.tolist()) == ([2.0, 2.0], [3.0, 3.0])


def test_a_model_can_be_initialised_after_its_construction(filled: list[str]) -> None:
    """Passing over ends with the constructor; a copy that it made is no exception."""
    layers = build(Layers, torch.float32).model
    for layer in (layers.linear, layers.copied):
        assert not vars(layer).keys() & {"reset_parameters", "initialize_weights"}
        layer.reset_parameters()
    assert len(filled) == 2


def test_other_threads_build_their_modules_meanwhile() -> None:
    """STA-1: what another thread constructs during a build is real."""
    inside, done = threading.Event(), threading.Event()
    theirs: list[nn.Module] = []

    def other() -> None:
        inside.wait(10)
        theirs.append(nn.Linear(2, 2))
        done.set()

    def construct() -> nn.Module:
        inside.set()
        assert done.wait(10)
        return nn.Linear(2, 2)

    thread = threading.Thread(target=other)
    thread.start()
    ours = build(construct, torch.float32).model
    thread.join()
    assert ours.weight.is_meta
    assert not theirs[0].weight.is_meta


def test_a_skeleton_inside_a_constructor() -> None:
    """A class may build another model while it is built."""

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = build(lambda: nn.Linear(2, 2), torch.float32).model
            self.own = nn.Linear(2, 2)

    skeleton = build(Outer, torch.float16)
    assert torch.get_default_dtype() == torch.float32
    assert skeleton.slots["inner.weight"].dtype == torch.float32
    assert skeleton.slots["own.weight"].dtype == torch.float16
    assert {p.device.type for p in skeleton.model.parameters()} == {"meta"}


def test_like_and_put_keep_what_a_parameter_is() -> None:
    """INI-3: class, flag and attributes; a buffer stays a buffer."""
    model = build(Zoo, torch.float32).model
    put(model, "marked", torch.zeros(4))
    assert (type(model.marked), model.marked.note, model.marked.requires_grad) == (
        Marked,
        "kept",
        False,
    )
    put(model, "linear.weight", torch.ones(2, 3))
    assert isinstance(model.linear.weight, nn.Parameter)
    assert model.linear.weight.is_leaf
    put(model, "steps", torch.tensor(9))
    assert "steps" in model._buffers
    assert "steps" not in model._parameters
    assert model.steps.item() == 9
    shared = nn.Parameter(torch.ones(2))
    put(model, "linear.bias", shared)
    assert model.linear.bias is shared
    assert like(shared, torch.zeros(1)).requires_grad
