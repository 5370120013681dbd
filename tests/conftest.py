"""What the tests of the rooms share: no network, tiny checkpoints, and the state of the process."""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import nn
from torch.nn.modules import module as torch_module

from conformance.bench import checkpoints
from conformance.bench.checkpoints import REAL_LLAMA2_7B, SYNTHETIC
from conformance.cases.case import Case
from conformance.judge.checks import objections
from conformance.judge.divergences import compare
from conformance.judge.session import baseline_of
from conformance.observe.loaders import reference, stock
from conformance.observe.observe import observe
from conformance.results.records import Divergence, Observation
from conformance.world.gpus import absent
from conformance.world.hub_world import asking
from conformance.world.memory import resident
from conformance_fixtures.files import write_safetensors
from conformance_fixtures.hub.hub import Hub
from conformance_fixtures.llama2_7b import default_folder
from conformance_fixtures.llama2_7b_geometry import LLAMA2_7B, total_size
from conformance_fixtures.write import digest, materialise

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports transformers

if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has a core: a second thread only waits
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)

# How much a random test draws that does not say it itself; either way the same in every run.
settings.register_profile(
    "default",
    max_examples=50,
    derandomize=True,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("nightly", settings.get_profile("default"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("machines", "what a large machine is used for")
    group.addoption(
        "--require-gpu", action="store_true", help="a missing GPU is a failure, and no skip"
    )
    group.addoption(
        "--llama2-7b",
        default=os.environ.get(REAL_LLAMA2_7B, ""),
        metavar=f"PATH_OR_ID|{SYNTHETIC}",
        help="Llama-2-7B: a folder, or an id in the Hub's cache; `synthetic` for random weights of "
        "the same geometry, which a GPU test takes if nothing is given ($LLAMA2_7B)",
    )


def pytest_report_header(config: pytest.Config) -> str:
    return f"Llama-2-7B: {_told(config.getoption('--llama2-7b'))}"


def _told(given: str) -> str:
    return given if given not in ("", SYNTHETIC) else "the synthetic checkpoint of its geometry"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is None or not (reason := absent("cuda")):
        return
    if item.config.getoption("--require-gpu"):
        pytest.fail(f"--require-gpu: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture
def llama2_7b(pytestconfig: pytest.Config, record_property: Callable[[str, object], None]) -> Path:
    """The folder of Llama-2-7B: of what was given, else of the synthetic checkpoint."""
    given = pytestconfig.getoption("--llama2-7b")
    record_property("checkpoint", _told(given))
    if given in ("", SYNTHETIC):
        _skip_without_room(default_folder())
    return checkpoints.llama2_7b(given)


def _skip_without_room(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    wanted, free = 1.1 * total_size(LLAMA2_7B), shutil.disk_usage(folder.parent).free
    if not folder.exists() and free < wanted:
        pytest.skip(
            f"{wanted / 1e9:.0f} GB of disk are needed for it; {free / 1e9:.0f} GB are free"
        )


@pytest.fixture(scope="session")
def against_stock() -> Callable[[Case], tuple[Observation, list[Divergence]]]:
    """`against_stock(case)`: what the reference leaves, and where stock differs from it.

    One model is there at a time. What the absolute checks object to of either comes first.
    """

    def both(case: Case) -> tuple[Observation, list[Divergence]]:
        ours, theirs = (observe(case, loader).observation for loader in (reference, stock))
        plain = baseline_of(case)
        broken = [each for seen in (ours, theirs) for each in objections(case, seen, plain)]
        return ours, [*broken, *compare(ours, theirs)]

    return both


@pytest.fixture
def anonymous() -> Callable[[], AbstractContextManager[list[int]]]:
    """`with anonymous() as peak:` has in `peak[0]` the most anonymous memory above that before."""
    return _anonymous


@contextmanager
def _anonymous() -> Iterator[list[int]]:
    before, peak, over = resident("RssAnon")[0], [0], threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            peak[0] = max(peak[0], resident("RssAnon")[0] - before)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`checkpoint(recipe, *faults)`: a shared folder, not to be changed."""
    root = tmp_path_factory.mktemp("checkpoints")
    return lambda recipe, *faults: materialise(recipe, faults, root=root)


@pytest.fixture
def own(checkpoint: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """`own(recipe, *faults, **fields)`: a copy to change, `fields` written into its config."""

    def copy(recipe: str, *faults: str, **fields: Any) -> Path:
        folder = tmp_path / f"copy-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(checkpoint(recipe, *faults), folder)
        if fields:
            path = folder / "config.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | fields))
        return folder

    return copy


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Hub]:
    """A Hub, the only one that the client of this process may ask; its cache is `cache`."""
    with Hub() as hub, asking(hub, tmp_path / "cache"):
        yield hub


@pytest.fixture
def unchanged() -> Callable[..., AbstractContextManager[None]]:
    """`with unchanged(folder):` fails if the block changes the process or the folder.

    With `drawn=True` the generator of torch may move.
    """
    return _unchanged


@contextmanager
def _unchanged(folder: Path, drawn: bool = False) -> Iterator[None]:
    before = _state(folder, drawn)
    yield
    after = _state(folder, drawn)
    assert {name: after[name] for name in after if after[name] != before[name]} == {}


def _state(folder: Path, drawn: bool) -> dict[str, Any]:
    opened = (_target(fd) for fd in Path("/proc/self/fd").glob("*"))
    return {
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "grad mode": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "torch generator": None if drawn else bytes(torch.get_rng_state().tolist()),
        "python generator": random.getstate(),
        "environment": dict(os.environ),
        "warning filters": list(warnings.filters),
        "registration hooks": len(torch_module._global_parameter_registration_hooks),
        "open files": sorted(name for name in opened if name.startswith(str(folder))),
        "folder": digest(folder) if folder.is_dir() else None,
    }


def _target(fd: Path) -> str:
    try:
        return str(fd.readlink())
    except OSError:  # the descriptor of the listing itself
        return ""


@pytest.fixture
def same_models() -> Callable[[nn.Module, nn.Module], None]:
    """`same_models(a, b)` fails unless class, tensors, ties, modes and configs are the same."""
    return _same_models


def _same_models(left: nn.Module, right: nn.Module) -> None:
    assert type(left) is type(right)
    ours, theirs = _tensors(left), _tensors(right)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        other = theirs[name]
        facts = (tensor.dtype, tensor.shape, tensor.stride(), tensor.device, tensor.requires_grad)
        assert facts == (
            other.dtype,
            other.shape,
            other.stride(),
            other.device,
            other.requires_grad,
        ), name
        assert torch.equal(tensor, other), name
    assert _ties(ours) == _ties(theirs)
    assert [m.training for m in left.modules()] == [m.training for m in right.modules()]
    assert left.config.to_dict() == right.config.to_dict()
    generation = [getattr(model, "generation_config", None) for model in (left, right)]
    assert str(generation[0]) == str(generation[1])


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def _ties(tensors: dict[str, torch.Tensor]) -> set[tuple[str, ...]]:
    groups: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.numel():
            groups.setdefault(tensor.data_ptr(), []).append(name)
    return {tuple(sorted(names)) for names in groups.values() if len(names) > 1}


@pytest.fixture(scope="session")
def highest_memory() -> Callable[[list[int]], AbstractContextManager[None]]:
    """`with highest_memory(taken):` appends by how many bytes the memory rose at most; Linux."""
    return _highest_memory


@contextmanager
def _highest_memory(taken: list[int]) -> Iterator[None]:
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")[0]
    yield
    taken.append(resident("VmHWM")[0] - before)


@pytest.fixture
def stretch() -> Callable[..., None]:
    """`stretch(path, tensors, holes)`: tensors, then entries whose payload is a hole in the file.

    `holes` is key to dtype, shape and bytes.
    """
    return _stretch


def _stretch(path: Path, tensors: Any, holes: Any) -> None:
    write_safetensors(path, tensors)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, payload = json.loads(content[8 : 8 + length]), content[8 + length :]
    end = len(payload)
    for key, (dtype, shape, size) in holes.items():
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + payload)
    os.truncate(path, 8 + len(raw) + end)
