"""Whatever a constructor does with its parameters: the model that was saved, or a clear refusal.

INI-2, INI-4, TIE-1. The models are saved as transformers saves them, and the original is the judge.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import Parameter
from torch.nn.utils import parametrizations, parametrize, prune
from transformers import PretrainedConfig, PreTrainedModel

from reference_loader import from_pretrained
from reference_loader.errors import BadOptions, LoadError
from reference_loader.model.sharing import memory

Constructor = Callable[[Any], Any]

#: Kind of constructor to what it does with a new model, whose `forward` is `run(model, x)`.
KINDS: dict[str, tuple[Constructor, Callable[[Any, torch.Tensor], torch.Tensor]]] = {}
#: Kinds that no load can be right about, and the word that the refusal has to say.
REFUSED = {"lazy": "lazy", "class parameter in a list": "several models"}


def applied(model: Any, x: torch.Tensor) -> torch.Tensor:
    """What most of the kinds do: every layer in turn."""
    return functools.reduce(lambda value, layer: layer(value), model.children(), x)


def kind(name: str, run: Callable[[Any, torch.Tensor], torch.Tensor] = applied) -> Any:
    """Note a constructor under its name."""

    def note(construct: Constructor) -> Constructor:
        KINDS[name] = construct, run
        return construct

    return note


def linear() -> nn.Linear:
    return nn.Linear(4, 4, bias=False)


def matrix() -> Parameter:
    return Parameter(torch.randn(4, 4))


# Copies and ties.


@kind("copied part")
def _(m: Any) -> None:
    m.a = linear()
    m.b = copy.deepcopy(m.a)


@kind("copied part that is tied")
def _(m: Any) -> None:
    m.a = linear()
    m.b = copy.deepcopy(m.a)
    m.c = linear()
    m.c.weight = m.b.weight


@kind("copied twice, tied inside")
def _(m: Any) -> None:
    inner = nn.Sequential(linear(), linear())
    inner[1].weight = inner[0].weight
    m.a = inner
    m.b = copy.deepcopy(inner)


@kind("clones in a list", lambda m, x: m.forward_through(x))
def _(m: Any) -> None:
    layer = linear()
    m.layers = nn.ModuleList([copy.deepcopy(layer) for _ in range(3)])
    m.forward_through = nn.Sequential(*m.layers)


@kind("cloned parameter", lambda m, x: x @ m.a @ m.b)
def _(m: Any) -> None:
    m.a = matrix()
    m.b = Parameter(m.a.clone().detach())


@kind("detached parameter", lambda m, x: x @ m.a @ m.b)
def _(m: Any) -> None:
    m.a = matrix()
    m.b = Parameter(m.a.detach())


@kind("parameter of data", lambda m, x: x @ m.a @ m.b)
def _(m: Any) -> None:
    m.a = matrix()
    m.b = Parameter(m.a.data)


@kind("two parameters of one tensor", lambda m, x: x @ m.a @ m.b)
def _(m: Any) -> None:
    values = torch.randn(4, 4)
    m.a, m.b = Parameter(values), Parameter(values)


@kind("parameter of a transposed view", lambda m, x: x @ m.a @ m.b)
def _(m: Any) -> None:
    m.a = matrix()
    m.b = Parameter(m.a.data.t())


@kind("parameters that are slices", lambda m, x: x @ m.a @ m.b)
def _(m: Any) -> None:
    whole = torch.randn(8, 4)
    m.a, m.b = Parameter(whole[:4]), Parameter(whole[4:])


@kind("parameters that overlap", lambda m, x: x @ m.a @ m.b)
def _(m: Any) -> None:
    whole = torch.randn(6, 4)
    m.a, m.b = Parameter(whole[:4]), Parameter(whole[2:])


@kind("registered twice", lambda m, x: x @ m.a @ m.b)
def _(m: Any) -> None:
    m.a = m.b = matrix()


@kind("registered under another module", lambda m, x: m.layer(x) @ m.own)
def _(m: Any) -> None:
    m.layer = linear()
    m.own = m.layer.weight


@kind("one module twice")
def _(m: Any) -> None:
    m.a = m.b = linear()


@kind("tied by hand in a table", lambda m, x: m.b(m.a(x)))
def _(m: Any) -> None:
    m.a, m.b = linear(), linear()
    m.b._parameters["weight"] = m.a.weight


# Values given in the constructor.


@kind("filled in place")
def _(m: Any) -> None:
    m.a = linear()
    m.a.weight.data.fill_(2.0)
    with torch.no_grad():
        m.a.weight[0].zero_()


@kind("data assigned")
def _(m: Any) -> None:
    m.a = linear()
    m.a.weight.data = torch.eye(4)


@kind("data assigned across")
def _(m: Any) -> None:
    m.a, m.b = linear(), linear()
    m.b.weight.data = m.a.weight.data


@kind("replaced by a product", lambda m, x: m.a(x))
def _(m: Any) -> None:
    m.a = linear()
    m.a.weight = Parameter(m.a.weight * 2)


@kind("orthogonal")
def _(m: Any) -> None:
    m.a = linear()
    nn.init.orthogonal_(m.a.weight)


@kind("a value is read", lambda m, x: m.a(x) * m.scale)
def _(m: Any) -> None:
    m.a = linear()
    nn.init.constant_(m.a.weight, 0.5)
    m.scale = m.a.weight.sum().item()


@kind("a branch on a value", lambda m, x: m.a(x) * m.sign)
def _(m: Any) -> None:
    m.a = linear()
    nn.init.ones_(m.a.weight)
    m.sign = 1.0 if m.a.weight.min() > 0 else -1.0


@kind("numpy")
def _(m: Any) -> None:
    m.a = linear()
    m.a.weight.data.copy_(torch.from_numpy(m.a.weight.detach().numpy() * 2))


@kind("a state dict is loaded")
def _(m: Any) -> None:
    m.a, m.b = linear(), linear()
    m.b.load_state_dict(m.a.state_dict())


@kind("a forward pass")
def _(m: Any) -> None:
    m.a = linear()
    m.register_buffer("seen", m.a(torch.ones(1, 4)).detach(), persistent=False)
    nn.init.ones_(m.a.weight)


@kind("moved")
def _(m: Any) -> None:
    m.a = linear().to("cpu").to(torch.float32)
    m.b = linear().requires_grad_(False).eval()


@kind("swapped")
def _(m: Any) -> None:
    m.a, m.b = linear(), linear()
    m.a, m.b = m.b, m.a


@kind("deleted and made anew")
def _(m: Any) -> None:
    m.a = linear()
    del m.a.weight
    m.a.weight = matrix()


@kind("parameters to a vector and back")
def _(m: Any) -> None:
    m.a, m.b = linear(), linear()
    flat = nn.utils.parameters_to_vector(m.parameters())
    nn.utils.vector_to_parameters(flat * 2, m.parameters())


# What torch makes of a weight.


@kind("old weight norm")
def _(m: Any) -> None:
    m.a = nn.utils.weight_norm(linear())


@kind("new weight norm")
def _(m: Any) -> None:
    m.a = parametrizations.weight_norm(linear())


@kind("old spectral norm")
def _(m: Any) -> None:
    m.a = nn.utils.spectral_norm(linear())


@kind("new spectral norm")
def _(m: Any) -> None:
    m.a = parametrizations.spectral_norm(linear())


@kind("orthogonal parametrization")
def _(m: Any) -> None:
    m.a = parametrizations.orthogonal(linear())


@kind("parametrized")
def _(m: Any) -> None:
    m.a = linear()
    parametrize.register_parametrization(m.a, "weight", nn.Tanh(), unsafe=True)


@kind("weight norm taken off")
def _(m: Any) -> None:
    m.a = nn.utils.remove_weight_norm(nn.utils.weight_norm(linear()))


@kind("pruned")
def _(m: Any) -> None:
    m.a = prune.random_unstructured(linear(), "weight", amount=0.5)


@kind("pruned for good")
def _(m: Any) -> None:
    m.a = prune.remove(prune.l1_unstructured(linear(), "weight", amount=0.5), "weight")


@kind("lazy")
def _(m: Any) -> None:
    m.a = nn.LazyLinear(4)


@kind("lazy, with a forward pass")
def _(m: Any) -> None:
    m.a = nn.LazyLinear(4)
    m.a(torch.ones(1, 4))


@kind("lstm", lambda m, x: m.a(x)[0])
def _(m: Any) -> None:
    m.a = nn.LSTM(4, 4, num_layers=2)


@kind("gru, copied", lambda m, x: m.b(m.a(x)[0])[0])
def _(m: Any) -> None:
    m.a = nn.GRU(4, 4)
    m.b = copy.deepcopy(m.a)


@kind("lstm with old weight norm", lambda m, x: m.a(x)[0])
def _(m: Any) -> None:
    m.a = nn.utils.weight_norm(nn.LSTM(4, 4), "weight_hh_l0")


@kind("batch norm")
def _(m: Any) -> None:
    m.a, m.b = linear(), nn.BatchNorm1d(4)


@kind("bilinear and embedding", lambda m, x: m.a(x, m.b.weight[:3]))
def _(m: Any) -> None:
    m.a, m.b = nn.Bilinear(4, 4, 4), nn.Embedding(5, 4, padding_idx=0)


# Where parameters are held.


@kind("parameter list", lambda m, x: x @ m.a[0] @ m.a[1])
def _(m: Any) -> None:
    m.a = nn.ParameterList([matrix(), matrix()])


@kind("parameter list with one twice", lambda m, x: x @ m.a[0] @ m.a[1])
def _(m: Any) -> None:
    one = matrix()
    m.a = nn.ParameterList([one, one])


@kind("parameter dict", lambda m, x: x @ m.a["x"] @ m.a["y"])
def _(m: Any) -> None:
    m.a = nn.ParameterDict({"x": matrix(), "y": matrix()})
    m.a["z"] = m.a["x"]


@kind("plain list, before it is registered", lambda m, x: x @ m.many[0] @ m.many[1])
def _(m: Any) -> None:
    m.many = [matrix(), matrix()]
    m.a, m.b = m.many


@kind("plain list, after it is registered", lambda m, x: x @ m.many[0] @ m.many[1])
def _(m: Any) -> None:
    m.a, m.b = matrix(), matrix()
    m.many = [m.a, m.b]


@kind("plain dict in an object", lambda m, x: x @ m.held.table["a"])
def _(m: Any) -> None:
    m.a = matrix()
    m.held = SimpleNamespace(table={"a": m.a})


@kind("closure", lambda m, x: m.act(x))
def _(m: Any) -> None:
    weight = m.a = matrix()
    m.act = lambda x: x @ weight


@kind("closure over what was registered", lambda m, x: m.act(x))
def _(m: Any) -> None:
    m.a = matrix()
    weight = m.a
    m.act = lambda x: x @ weight


@kind("partial", lambda m, x: m.act(m.a(x)))
def _(m: Any) -> None:
    m.a = linear()
    m.act = functools.partial(torch.matmul, other=m.a.weight)


@kind("bound method of a part", lambda m, x: m.act(x))
def _(m: Any) -> None:
    m.a = linear()
    m.act = m.a.forward


@kind("forward hook", lambda m, x: m.a(x))
def _(m: Any) -> None:
    m.a = linear()
    weight = m.a.weight
    m.a.register_forward_hook(lambda _, __, out: out @ weight)


@kind("list of modules", lambda m, x: m.layers[0](x))
def _(m: Any) -> None:
    m.a = linear()
    m.layers = [m.a]


@kind("module that is hidden", lambda m, x: m.layers[0](m.a(x)))
def _(m: Any) -> None:
    m.a = linear()
    hidden = linear()
    nn.init.eye_(hidden.weight)
    m.layers = [hidden]


@kind("module that is hidden and tied", lambda m, x: m.layers[0](m.a(x)))
def _(m: Any) -> None:
    m.a = linear()
    hidden = linear()
    hidden.weight = m.a.weight
    m.layers = [hidden]


@kind("attribute that is a weight", lambda m, x: x @ m.__dict__["alias"])
def _(m: Any) -> None:
    m.a = linear()
    m.__dict__["alias"] = m.a.weight


@kind("attribute that is a view", lambda m, x: x @ m.view.reshape(4, 4))
def _(m: Any) -> None:
    m.a = linear()
    m.view = m.a.weight.data.view(-1)


@kind("attribute of the values before", lambda m, x: x @ m.view)
def _(m: Any) -> None:
    values = torch.randn(4, 4)
    m.a = Parameter(values)
    m.view = values


@kind("computed attribute", lambda m, x: m.a(x) * m.norm)
def _(m: Any) -> None:
    m.a = linear()
    nn.init.ones_(m.a.weight)
    m.norm = m.a.weight.detach().norm()


# Buffers.


@kind("buffer that is a parameter's data", lambda m, x: x @ m.a @ m.b)
def _(m: Any) -> None:
    m.a = matrix()
    m.register_buffer("b", m.a.data)


@kind("buffer that is a view, not saved", lambda m, x: x @ m.a @ m.b)
def _(m: Any) -> None:
    m.a = matrix()
    m.register_buffer("b", m.a.data.t(), persistent=False)


@kind("buffer that is a slice", lambda m, x: x @ m.a * m.b)
def _(m: Any) -> None:
    m.a = matrix()
    m.register_buffer("b", m.a.data[0])


@kind("buffer registered twice", lambda m, x: x @ m.a * m.b + m.c)
def _(m: Any) -> None:
    m.a = matrix()
    m.register_buffer("b", torch.randn(4))
    m.register_buffer("c", m.b)


@kind("buffer that is a view of a buffer", lambda m, x: x @ m.a * m.b + m.c)
def _(m: Any) -> None:
    m.a = matrix()
    m.register_buffer("b", torch.randn(4))
    m.register_buffer("c", m.b.view(2, 2)[0].sum() * 0 + m.b)
    m.register_buffer("d", m.b.view(2, 2))


@kind("buffer with an attribute", lambda m, x: x @ m.a * m.kept["b"])
def _(m: Any) -> None:
    m.a = matrix()
    m.register_buffer("b", torch.randn(4))
    m.kept = {"b": m.b}


@kind("buffer from weights", lambda m, x: m.a(x) * m.b)
def _(m: Any) -> None:
    m.a = linear()
    m.register_buffer("b", m.a.weight.detach().sum(0))


@kind("buffer on a weight's device", lambda m, x: m.a(x) * m.b)
def _(m: Any) -> None:
    m.a = linear()
    m.register_buffer("b", torch.ones(4, device=m.a.weight.device), persistent=False)


@kind("buffers that are expanded", lambda m, x: m.a(x) * m.b)
def _(m: Any) -> None:
    m.a = linear()
    m.register_buffer("b", torch.full((1,), 2.0).expand(4))
    m.register_buffer("c", m.b)


# Shared with what is outside.

SHARED = nn.Parameter(torch.randn(4, 4))


@kind("shared between instances", lambda m, x: m.a(x) @ m.b)
def _(m: Any) -> None:
    m.a = linear()
    m.b = SHARED


@kind("class parameter in a list", lambda m, x: m.a(x) @ m.many[0])
def _(m: Any) -> None:
    m.a = linear()
    m.b = SHARED
    m.many = [SHARED]


LOADED = [name for name in KINDS if name not in REFUSED]
#: Their constructors ask for float32 themselves.
OWN_DTYPE = ("moved", "shared between instances", "data assigned across")

#: They use a weight of a part without calling the part, which accelerate does not see.
NOT_CALLED = ("bound method of a part", "bilinear and embedding")


class ToyConfig(PretrainedConfig):  # type: ignore[misc]
    """Nothing but a name."""

    model_type = "toy-constructors"


def toy(name: str) -> type[PreTrainedModel]:
    """A class of transformers whose constructor does what the kind says."""
    construct, run = KINDS[name]

    class Toy(PreTrainedModel):  # type: ignore[misc]
        config_class = ToyConfig

        def __init__(self, config: ToyConfig) -> None:
            super().__init__(config)
            construct(self)

        def _init_weights(self, module: nn.Module) -> None:
            pass

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return run(self, x)

    return Toy


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
    return {**found, **dict(model.named_buffers(remove_duplicate=False))}


def groups(model: nn.Module) -> set[frozenset[str]]:
    """Which tensors share memory."""
    by_memory: dict[int, set[str]] = {}
    for name, tensor in tensors(model).items():
        by_memory.setdefault(memory(tensor), set()).add(name)
    return {frozenset(names) for names in by_memory.values()}


def trained(model: nn.Module) -> Any:
    """The model with other values than its constructor gives, as after a training."""
    with torch.no_grad():
        for tensor in {id(t): t for t in model.parameters()}.values():
            tensor.add_(torch.randn(tensor.shape) / 8)
    return model


def saved(model: Any, folder: Path) -> None:
    """As transformers does it; what it cannot save as copies, which are the same values."""
    try:
        model.save_pretrained(folder)
    except (RuntimeError, ValueError):
        model.config.save_pretrained(folder)
        state = {key: copied(t) for key, t in model.state_dict().items()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def copied(tensor: torch.Tensor) -> torch.Tensor:
    lazy = isinstance(tensor, nn.UninitializedParameter)
    return torch.ones(4) if lazy else tensor.detach().clone().contiguous()


@pytest.fixture(autouse=True)
def _shared_stays() -> Iterator[None]:
    before = SHARED.detach().clone()
    yield
    with torch.no_grad():
        SHARED.copy_(before)


def written(name: str, folder: Path) -> Any:
    """A model of the kind, trained and saved."""
    torch.manual_seed(5)
    model = trained(toy(name)(ToyConfig()).eval())
    saved(model, folder)
    return model


def loaded_again(model: Any, folder: Path, **options: Any) -> Any:
    """The checkpoint of the model, loaded; nothing is without memory and sharing is as built."""
    outside = SHARED.detach().clone()
    torch.manual_seed(5)
    loaded = from_pretrained(folder, model_class=type(model), **options)
    assert torch.equal(SHARED, outside)
    wanted, found = tensors(model), tensors(loaded)
    assert list(found) == list(wanted)
    assert groups(loaded) == groups(model)
    for key, tensor in wanted.items():
        assert type(found[key]) is type(tensor)
        assert found[key].requires_grad == tensor.requires_grad
    return loaded


@pytest.mark.parametrize("name", LOADED)
def test_the_model_is_the_one_that_was_saved(name: str, tmp_path: Path) -> None:
    """INI-2, INI-4, TIE-1: values, ties, outputs, and nothing without memory."""
    model = written(name, tmp_path)
    loaded = loaded_again(model, tmp_path)
    assert not [key for key, tensor in tensors(loaded).items() if tensor.is_meta]
    x = torch.randn(3, 4)
    assert torch.allclose(loaded(x), model(x))
    found = tensors(loaded)
    assert [k for k, tensor in tensors(model).items() if not torch.equal(found[k], tensor)] == []


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused(name: str, tmp_path: Path) -> None:
    model = toy(name)(ToyConfig())
    saved(model, tmp_path)
    with pytest.raises(LoadError, match=REFUSED[name]):
        from_pretrained(tmp_path, model_class=type(model))


@pytest.mark.parametrize("name", LOADED)
def test_a_weight_is_missing(name: str, tmp_path: Path) -> None:
    """MIS-1: it has what the constructor gives, the others what is stored."""
    model = written(name, tmp_path)
    file = tmp_path / "model.safetensors"
    first, *others = load_file(file)
    if not others:
        return
    stored = {key: tensor for key, tensor in load_file(file).items() if key != first}
    save_file(stored, file, metadata={"format": "pt"})
    found = tensors(loaded_again(model, tmp_path))
    assert not any(tensor.is_meta for tensor in found.values())
    assert [key for key, tensor in stored.items() if not torch.equal(found[key], tensor)] == []


@pytest.mark.parametrize("name", LOADED)
def test_it_is_cast(name: str, tmp_path: Path) -> None:
    """DTY-7."""
    model = written(name, tmp_path)
    found = tensors(loaded_again(model, tmp_path, dtype=torch.float64))
    assert {t.dtype for t in found.values() if t.is_floating_point()} <= {
        torch.float64,
        *((torch.float32,) if name in OWN_DTYPE else ()),
    }
    for key in load_file(tmp_path / "model.safetensors"):
        assert torch.equal(found[key].float(), tensors(model)[key]), key


@pytest.mark.parametrize("name", LOADED)
def test_it_is_offloaded(name: str, tmp_path: Path) -> None:
    """OFF-1: the outputs are the same, or the load says which tensor cannot be on the disk."""
    model = written(name, tmp_path)
    places: Any = {"": "disk"}
    try:
        loaded = loaded_again(model, tmp_path, device_map=places, offload_folder=tmp_path)
    except BadOptions as error:
        assert "device_map puts '" in str(error)
        return
    if name not in NOT_CALLED:
        x = torch.randn(3, 4)
        assert torch.allclose(loaded(x), model(x))
