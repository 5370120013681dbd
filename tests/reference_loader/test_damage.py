"""Every fault that must be refused: what the reference says, opens, writes and takes of memory."""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from conformance.cases.case import INVALID, Case
from conformance.cases.catalogue import CASES, catalogue
from conformance.observe.loaders import reference
from conformance.observe.observe import observe, warm_up
from conformance.world.hostile_filesystem import disk_full, unprivileged
from conformance.world.user_models import Overtaken
from conformance_fixtures.cache import cache_root
from conformance_fixtures.faults import FAULTS
from conformance_fixtures.faults.folder_layout import NEWER
from conformance_fixtures.files import write_bin
from reference_loader import errors, from_pretrained

# STA-6 is about errors that are the model's own.
REFUSED = [
    case
    for case in CASES
    if case.input_class == INVALID and case.faults and not case.hub and "STA-6" not in case.clauses
]

# Faults that another fault or an option makes whole again, and no case is of alone.
# The code of these is for the tests of refused and trusted code; cases use their other forms.
WITHOUT_A_CASE = {
    "code-config",
    *(
        f"code-{name}-unmarked"
        for name in ("config", "config-elsewhere", "kernel", "model", "part")
    ),
}

# Beyond what a valid load takes: what the allocator gives back late.
SLACK = 8_000_000

_HEARERS: list[list[str]] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _HEARERS and event == "open" and isinstance(arguments[0], (str, os.PathLike)):
        _HEARERS[-1].append(os.path.realpath(arguments[0]))


sys.addaudithook(_hear)  # it cannot be taken away again


@contextmanager
def heard() -> Iterator[list[str]]:
    """The files that Python opens in the block, links followed."""
    _HEARERS.append([])
    try:
        yield _HEARERS[-1]
    finally:
        _HEARERS.pop()


def is_a_strangers(path: str, entry: Path) -> bool:
    """Whether a file is neither of the checkpoint, nor of Python and its packages, the system's or
    in the folder that a load was given to write to."""
    copy = str(cache_root() / "copied")  # where a case has a copy of the checkpoint to itself
    own = (str(entry), copy, sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]))
    packages = tuple(place for place in sys.path if place)
    suites = [str(Path(gettempdir(), f"conformance-{name}-")) for name in ("offload", "modules")]
    return not path.startswith((*own, *packages, "/proc/", "/sys/", "/dev/", *suites))


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Names, sizes, times and modes of all that lies in a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        held = path.lstat()
        found[str(path)] = (held.st_size, held.st_mtime_ns, held.st_mode)
    return found


@pytest.fixture(scope="module")
def valid_load(highest_memory: Any) -> int:
    """The memory that a load of a good checkpoint takes, observed as the others are."""
    case = next(case for case in CASES if case.id == "res/single")
    warm_up(case, reference)
    taken: list[int] = []
    with highest_memory(taken):
        observe(case, reference)
    return taken[0]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
def test_a_damage_is_refused_by_name_and_nothing_is_left_of_the_attempt(
    case: Case, valid_load: int, highest_memory: Any
) -> None:
    entry = case.source().parent
    before, taken = listing(entry), list[int]()
    with highest_memory(taken), heard() as opened:
        seen = observe(case, reference).observation
    assert seen.exception is not None
    assert "LoadError" in seen.exception["types"]
    assert [name for name in case.names if name not in seen.exception["message"]] == []
    assert seen.exception["message"].replace("\n", "").isprintable()
    assert seen.state["before"] == seen.state["after"]
    assert listing(entry) == before
    assert [path for path in opened if is_a_strangers(path, entry)] == []
    assert "A_PICKLE_RAN_CODE" not in os.environ
    if "STA-11" not in case.clauses:  # the snapshot of the whole process takes memory itself
        assert taken[0] <= valid_load + SLACK


def test_memory_is_seen(highest_memory: Any) -> None:
    taken: list[int] = []
    with highest_memory(taken), mmap.mmap(-1, 1 << 25) as fresh:  # an allocator may have some left
        fresh.write(bytes(1 << 25))
    assert taken[0] > 1 << 24


def test_what_is_opened_is_heard(tmp_path: Path) -> None:
    entry = tmp_path / "entry"
    entry.mkdir()
    for path in (tmp_path / "secret", entry / "config.json"):
        path.write_text("{}")
    with heard() as opened:
        (entry / "config.json").read_text()
        (tmp_path / "secret").read_text()
    strange = [path for path in opened if is_a_strangers(path, entry)]
    assert strange == [str(tmp_path / "secret")]


def test_every_fault_is_of_a_case() -> None:
    used = {fault for case in (*CASES, *catalogue("cuda")) for fault in case.faults}
    assert set(FAULTS) - used == WITHOUT_A_CASE


@pytest.mark.parametrize("how", ["read", "list"])
def test_without_privileges_modes_hold(tmp_path: Path, how: str) -> None:
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_text("x")
    (path if how == "read" else path.parent).chmod(0)
    with unprivileged(), pytest.raises(PermissionError):
        path.read_text()
    path.parent.chmod(0o700)
    path.chmod(0o600)
    assert path.read_text() == "x"


def test_a_full_disk_takes_small_files_only(tmp_path: Path) -> None:
    with disk_full():
        (tmp_path / "small").write_bytes(bytes(100))
        with pytest.raises(OSError, match="File too large"):
            (tmp_path / "large").write_bytes(bytes(100_000))
    (tmp_path / "large").write_bytes(bytes(100_000))


def test_a_full_disk_leaves_nothing_of_the_offloaded_weights(
    checkpoint: Any, tmp_path: Path
) -> None:
    """OFF-9: the norm fits, the head does not."""
    places = {"model.layers": "cpu", "model.embed_tokens": "cpu", "model.norm": "disk"}
    options = {"device_map": {**places, "model.rotary_emb": "cpu", "lm_head": "disk"}}
    source = checkpoint("llama-f32", "pickled")
    with disk_full(), pytest.raises(errors.DiskFull, match=r"lm_head\.weight"):
        from_pretrained(source, offload_folder=tmp_path, **options)
    assert list(tmp_path.iterdir()) == []
    from_pretrained(source, offload_folder=tmp_path, **options)
    assert len(list(tmp_path.glob("*.dat"))) == 2


def test_a_disk_without_room_is_not_written_to(
    checkpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OFF-9: accelerate writes through a mapping, and there a full disk is the end of a process."""
    nothing = type("Usage", (), {"free": 0})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: nothing)
    with pytest.raises(errors.DiskFull, match="no space left"):
        from_pretrained(
            checkpoint("llama-f32", "pickled"),
            device_map={"model": "cpu", "lm_head": "disk"},
            offload_folder=tmp_path / "new",
        )
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("form", ["safetensors", "pickled"])
def test_weights_exchanged_for_others_of_another_layout_are_refused(
    own: Any, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FMT-19: the new file's bytes mean nothing under the old file's header."""
    folder = own("llama-f32", *(["pickled"] if form == "pickled" else []))
    other = own("llama-f32", "missing-norm", *(["pickled"] if form == "pickled" else []))
    weights = "pytorch_model.bin" if form == "pickled" else "model.safetensors"
    monkeypatch.setattr(LlamaForCausalLM, "__init__", _exchanging(other, folder, weights))
    with pytest.raises(errors.BadTensorFile, match=rf"{weights} .*'model\.") as raised:
        from_pretrained(folder, model_class=LlamaForCausalLM)
    assert not (other / weights).exists(), raised


def _exchanging(other: Path, folder: Path, weights: str) -> Any:
    construct = LlamaForCausalLM.__init__

    def exchange(self: Any, config: Any) -> None:
        if (other / weights).exists():
            (other / weights).replace(folder / weights)
        construct(self, config)

    return exchange


def test_weights_exchanged_for_others_are_loaded_whole(own: Any) -> None:
    """FMT-19."""
    folder = own("llama-f32", "newer-weights-beside")
    (folder / "newer.safetensors").symlink_to(NEWER)
    newer = from_pretrained(folder / "newer.safetensors", model_class=LlamaForCausalLM)
    model = from_pretrained(folder, model_class=Overtaken)
    assert not (folder / NEWER).exists()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, newer.get_parameter(name))


def test_a_hole_beyond_every_table_is_not_read(own: Any, highest_memory: Any) -> None:
    """IDX-4, CFG-7: a terabyte that takes no place on the disk is no reason to take memory."""
    folder = own("llama-f32-2")
    taken: list[int] = []
    os.truncate(folder / "model.safetensors.index.json", 1 << 40)
    with highest_memory(taken), pytest.raises(errors.BadIndex, match="bytes"):
        from_pretrained(folder)
    assert taken[0] < 50_000_000


@pytest.mark.parametrize("legacy", [False, True])
def test_a_tensor_of_a_gigabyte_in_a_few_bytes_takes_none(
    own: Any, highest_memory: Any, legacy: bool
) -> None:
    """FMT-15: found by fuzzing; a stride of zero makes any size of one value."""
    folder = own("llama-f32", "pickled")
    path = folder / "pytorch_model.bin"
    held = torch.load(path, weights_only=True)
    write_bin(path, {**held, "huge": torch.ones(1).expand(1 << 28)}, legacy)
    assert path.stat().st_size < 300_000
    taken: list[int] = []
    with highest_memory(taken):
        _, info = from_pretrained(folder, output_loading_info=True)
    assert info["unexpected_keys"] == {"huge"}
    assert taken[0] < 50_000_000
