"""Reading, casting and placing. MAP-1, DTY-7, and the memory it takes."""

from __future__ import annotations

import errno
import gc
import json
import os
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from conformance.world.memory import forget, resident
from conformance_fixtures.faults.read_and_edit import read_weights
from conformance_fixtures.files import SAFETENSORS_DTYPES, write_safetensors
from reference_loader import LoadError, from_pretrained, plan
from reference_loader.fill import ring
from reference_loader.fill.copies import Copy, Crew
from reference_loader.fill.ring import PAGE, Lane, carriers
from reference_loader.formats.safetensors import MappedFile, read_header
from reference_loader.llama import Llama
from reference_loader.plan.decisions import Workers
from reference_loader.plan.workers import CHUNK, SLOT

MIB = 2**20
REAL = [dtype for dtype in SAFETENSORS_DTYPES if not dtype.is_complex]
LARGE = 200 * MIB
CORES = Workers(threads=2, slots=1, size=CHUNK)
NO_WAIT = getattr(os, "RWF_NOWAIT", 0)
EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture
def sparse(own: Any, stretch: Any) -> Path:
    """A tied Llama whose 200 MiB embedding is a hole in the file."""
    folder: Path = own("llama-tied-embedding", vocab_size=LARGE // 4 // 32)
    path = folder / "model.safetensors"
    tensors = read_weights(folder).tensors
    del tensors[EMBEDDING]
    stretch(path, tensors, {EMBEDDING: ("F32", [LARGE // 4 // 32, 32], LARGE)})
    return folder


def anonymous() -> int:
    """Bytes of this process's anonymous memory."""
    gc.collect()
    return resident("RssAnon")[0]


def test_weights_of_the_own_dtype_take_no_memory(sparse: Path) -> None:
    """Views of the mapped file: 200 MiB are loaded, and touched, and none of it is anonymous."""
    before = anonymous()
    model = from_pretrained(sparse, model_class=Llama)
    weight = model.model.embed_tokens.weight
    assert weight.count_nonzero() == 0
    assert weight.numel() * 4 == LARGE
    assert anonymous() - before < 20 * MIB
    with torch.no_grad():
        weight[:1000] = 1.0  # private pages: only what is written
    assert anonymous() - before < 24 * MIB


def test_a_cast_takes_the_memory_of_its_result(sparse: Path) -> None:
    """DTY-7: half of the file in float16, and nothing of the source stays."""
    before = anonymous()
    model = from_pretrained(sparse, model_class=Llama, dtype="float16")
    assert model.lm_head.weight.dtype == torch.float16
    assert LARGE // 2 - 4 * MIB < anonymous() - before < LARGE // 2 + 20 * MIB


def test_changing_the_model_does_not_change_the_file(own: Any) -> None:
    folder = own("llama-f32-2")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    model = from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(3.0)
    again = from_pretrained(folder)
    assert all(p.unique().tolist() != [3.0] for p in again.parameters())
    del model, again
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_each_tensor_holds_its_own_storage_only(checkpoint: Any) -> None:
    """A tensor that is saved or shared drags no neighbour along."""
    model = from_pretrained(checkpoint("llama-f32"))
    for name, parameter in model.named_parameters():
        size = parameter.numel() * parameter.element_size()
        assert parameter.untyped_storage().nbytes() == size, name
        assert parameter.is_contiguous(), name
    starts = [p.data_ptr() for p in model.parameters()]
    assert len(set(starts)) == len(starts)


def test_the_model_outlives_its_folder(own: Any) -> None:
    """The mapping is the tensor's, not the directory's."""
    folder = own("llama-f32")
    model = from_pretrained(folder)
    held = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    (folder / "model.safetensors").unlink()
    assert all(torch.equal(t, held[k]) for k, t in model.state_dict().items())


def test_every_tensor_comes_from_its_own_place(checkpoint: Any) -> None:
    """MAP-1: bit for bit, one file or seven."""
    for recipe in ("llama-f32", "llama-f32-7", "llama-bf16-2"):
        folder = checkpoint(recipe)
        model = from_pretrained(folder).state_dict()
        stored = read_weights(folder).tensors
        assert model.keys() == stored.keys()
        assert all(torch.equal(model[k], stored[k]) for k in stored)


@pytest.mark.parametrize("wanted", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_each_value_is_rounded_once(checkpoint: Any, wanted: torch.dtype) -> None:
    """DTY-7: from the stored value, whatever the dtypes of the file."""
    folder = checkpoint("llama-mixed-2")
    stored = read_weights(folder).tensors
    model = from_pretrained(folder, dtype=wanted).state_dict()
    assert all(torch.equal(model[k], stored[k].to(wanted)) for k in stored)
    actions = {p.target: p.action for p in plan(folder, dtype=wanted).placements}
    assert actions == {k: "view" if t.dtype == wanted else "cast" for k, t in stored.items()}


def test_the_conversion_is_torchs(own: Any) -> None:
    """DTY-7: a float64 just above the middle of two bfloat16, which torch rounds by float32."""
    folder = own("llama-f32")
    tensors = read_weights(folder).tensors
    exact = torch.full((32,), 1 + 2**-8 + 2**-30, dtype=torch.float64)
    tensors["model.norm.weight"] = exact
    write_safetensors(folder / "model.safetensors", tensors)
    loaded = from_pretrained(folder, dtype="bfloat16").model.norm.weight
    assert torch.equal(loaded, exact.to(torch.bfloat16))


@pytest.mark.parametrize("dtype", REAL, ids=str)
def test_every_stored_dtype_can_be_cast_to_float(own: Any, dtype: torch.dtype) -> None:
    """MAP-1, DTY-7: integers and float8 in a float parameter."""
    folder = own("llama-f32")
    tensors = read_weights(folder).tensors
    tensors["model.norm.weight"] = torch.ones(32).to(dtype)
    write_safetensors(folder / "model.safetensors", tensors)
    loaded = from_pretrained(folder).model.norm.weight
    assert (loaded.dtype, loaded.tolist()) == (torch.float32, [1.0] * 32)


# Copies, their pieces, and who carries them.


class Whole:
    """A file of tensors in a row, mapped, and what it holds."""

    def __init__(self, folder: Path, tensors: dict[str, torch.Tensor]) -> None:
        self.path = folder / "weights.safetensors"
        write_safetensors(self.path, tensors)
        self.file = MappedFile(self.path)
        self.views = {key: self.file.view(t) for key, t in read_header(self.path).items()}


def on_cores(copies: list[Copy]) -> None:
    with carriers() as carry:
        for copy in copies:
            carry(copy, CORES)


def through_slots(copies: list[Copy], size: int = SLOT, slots: int = 2) -> None:
    """As to a GPU, with plain memory in its place."""
    with Crew(size, [Lane(torch.device("cpu"), size, slots) for _ in range(3)]) as crew:
        for copy in copies:
            crew.carry(copy)


def past_the_page_cache(copies: list[Copy]) -> None:
    """The same, and no page of a file counts as cached."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ring, "_cached", lambda _: False)
        through_slots(copies, CHUNK + 512)


WAYS = pytest.mark.parametrize("way", [on_cores, through_slots, past_the_page_cache])


@WAYS
@pytest.mark.parametrize("dtype", REAL, ids=str)
def test_a_large_cast_is_that_of_torch(tmp_path: Path, way: Any, dtype: torch.dtype) -> None:
    """DTY-7: in pieces, by several threads, from a place in the file that no page begins at."""
    elements = (CHUNK * 5 // 2) // dtype.itemsize + 3
    stored = torch.randint(0, 2, (elements,)).to(dtype)
    if dtype.is_floating_point and dtype.itemsize > 1:
        stored = torch.randn(elements, dtype=torch.float64).mul(1e3).to(dtype)
    whole = Whole(tmp_path, {"before": torch.ones(7, dtype=torch.uint8), "large": stored})
    for wanted in (torch.float32, torch.bfloat16):
        destination = torch.full((elements,), torch.nan, dtype=wanted)
        way([Copy(whole.views["large"], destination, whole.file)])
        assert torch.equal(destination, stored.to(wanted))


@WAYS
def test_several_tensors_become_one_without_a_copy_between(tmp_path: Path, way: Any) -> None:
    """Experts in their slices of a merged parameter, along either dimension, whatever the dtype."""
    experts = {f"expert.{n}": torch.randn(700, 900) for n in range(4)}
    whole = Whole(tmp_path, experts)
    stacked = torch.empty(4, 700, 900, dtype=torch.bfloat16)
    beside = torch.empty(700, 3600)
    for destinations in (stacked, beside.split(900, dim=1)):
        parts = zip(whole.views.values(), destinations, strict=True)
        way([Copy(source, part, whole.file) for source, part in parts])
    values = list(experts.values())
    assert torch.equal(stacked, torch.stack(values).to(torch.bfloat16))
    assert torch.equal(beside, torch.cat(values, dim=1))


@WAYS
def test_memory_that_is_no_files_stays_as_it_is(tmp_path: Path, way: Any) -> None:
    """Only a file can give its pages back; a state dict's are the caller's."""
    held = torch.randn(CHUNK)
    kept, destination = held.clone(), torch.empty(CHUNK, dtype=torch.float16)
    way([Copy(held, destination, None)])
    whole = Whole(tmp_path, {"other": torch.ones(CHUNK)})
    way([Copy(held, destination, whole.file)])  # not in that file either
    assert torch.equal(held, kept)
    assert torch.equal(destination, kept.to(torch.float16))


def test_a_state_dict_is_as_it_was_after_a_cast(own: Any) -> None:
    """STA, and the pages above: large tensors of the caller's own memory."""
    folder = own("llama-f32", vocab_size=40_000)
    config = json.loads((folder / "config.json").read_text())
    state = Llama.from_config(config).state_dict()
    before = {key: tensor.clone() for key, tensor in state.items()}
    model = from_pretrained(
        None, state_dict=state, config=config, model_class=Llama, dtype="bfloat16"
    )
    assert state[EMBEDDING].nbytes > CHUNK
    assert all(torch.equal(state[key], before[key]) for key in state)
    loaded = model.state_dict()
    assert all(torch.equal(loaded[key], before[key].bfloat16()) for key in state)


def test_pieces_are_small_and_whole(tmp_path: Path) -> None:
    source = torch.arange(12_000, dtype=torch.int16).view(3, 4000)
    flat = Copy(source, torch.empty(3, 4000), None)
    rows = Copy(source, torch.empty(3, 8000)[:, :4000], None)
    for copy in (flat, rows):
        pieces = list(copy.pieces(3000))
        assert max(piece.source.nbytes for piece in pieces) <= 3000
        assert torch.equal(torch.cat([p.source.reshape(-1) for p in pieces]), source.view(-1))
        for piece in pieces:
            piece.destination.copy_(piece.source)
        assert torch.equal(copy.destination, source.float())


def test_no_thread_and_no_setting_outlives_a_cast(sparse: Path) -> None:
    """STA: threads, their number in torch, in whatever mode the caller is."""
    threads, cores = threading.active_count(), torch.get_num_threads()
    with torch.inference_mode():
        model = from_pretrained(sparse, model_class=Llama, dtype="bfloat16")
    assert not model.model.embed_tokens.weight.is_inference()
    assert threading.active_count() == threads
    assert torch.get_num_threads() == cores


@WAYS
def test_threads_are_in_the_callers_inference_mode(tmp_path: Path, way: Any) -> None:
    """Outside of it a tensor that was made in it cannot be filled."""
    whole = Whole(tmp_path, {"large": torch.ones(CHUNK)})
    with torch.inference_mode():
        filled = torch.zeros(CHUNK)
        way([Copy(whole.views["large"], filled, whole.file)])
    assert filled.all()


def test_what_fails_in_a_thread_fails_the_load(tmp_path: Path) -> None:
    whole = Whole(tmp_path, {"large": torch.zeros(3 * CHUNK)})
    with pytest.raises(RuntimeError, match="size"):
        on_cores([Copy(whole.views["large"], torch.empty(5), whole.file)])
    os.truncate(whole.path, 1000)
    for way in (through_slots, past_the_page_cache):
        with pytest.raises(LoadError, match=r"weights\.safetensors became shorter"):
            way([Copy(whole.views["large"], torch.empty(3 * CHUNK), whole.file)])


def test_a_read_that_fails_is_an_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a disk's own error is, it is an `OSError`."""

    def failing(*given: Any) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    whole = Whole(tmp_path, {"large": torch.zeros(3 * CHUNK)})
    monkeypatch.setattr(os, "preadv", failing)
    with pytest.raises(LoadError, match=r"weights\.safetensors could not be read: .*Input/output"):
        through_slots([Copy(whole.views["large"], torch.empty(3 * CHUNK), whole.file)])


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_any_ring_carries_all(tmp_path: Path, slots: int) -> None:
    """Of slots no larger than a page, or larger than the tensor, of any number."""
    values = torch.arange(3 * CHUNK + 77, dtype=torch.int32)
    whole = Whole(tmp_path, {"before": torch.ones(3, dtype=torch.uint8), "large": values})
    for size in (PAGE, CHUNK - 4, 16 * CHUNK):
        destination = torch.zeros_like(values)
        through_slots([Copy(whole.views["large"], destination, whole.file)], size, slots)
        assert torch.equal(destination, values)


def is_cold(path: Path) -> bool:
    """Whether the page cache lacks the end of a file, as a read that may not wait tells.

    It may have the end read ahead, so this can be asked once.
    """
    with path.open("rb", buffering=0) as file:
        try:
            return not os.preadv(file.fileno(), [bytearray(1)], path.stat().st_size - 1, NO_WAIT)
        except OSError:
            return True


def test_what_the_page_cache_lacks_is_read_past_it(tmp_path: Path) -> None:
    """And does not come into it; what it holds is taken from it."""
    whole = Whole(tmp_path, {"large": torch.randn(4 * CHUNK)})
    view = whole.views["large"]
    forget(tmp_path)
    if not is_cold(whole.path):
        pytest.skip("this file system keeps its pages: nothing can be cold")
    assert not ring._cached(view)
    filled = torch.empty(4 * CHUNK)
    through_slots([Copy(view, filled, whole.file)])
    assert not ring._cached(view)
    assert torch.equal(filled, view)  # reads all of it through the mapping
    assert ring._cached(view)


@pytest.mark.parametrize("way", [through_slots, past_the_page_cache])
def test_the_file_that_was_opened_is_read(tmp_path: Path, way: Any) -> None:
    """FMT-19: whatever has been put in its place meanwhile."""
    whole, filled = Whole(tmp_path, {"large": torch.ones(CHUNK)}), torch.empty(CHUNK)
    other = tmp_path / "other.safetensors"
    write_safetensors(other, {"large": torch.zeros(CHUNK)})
    other.rename(whole.path)
    way([Copy(whole.views["large"], filled, whole.file)])
    assert filled.unique().tolist() == [1.0]


def test_a_file_is_closed_with_its_last_use(tmp_path: Path) -> None:
    whole = Whole(tmp_path, {"large": torch.ones(8)})
    descriptor, view = whole.file.descriptor, whole.views["large"]
    os.fstat(descriptor)
    del whole
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert view.sum() == 8


def test_a_file_exchanged_while_it_is_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FMT-19: its header would be of one file, its payload of another."""
    path, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    write_safetensors(path, {"large": torch.ones(8)})
    write_safetensors(other, {"large": torch.zeros(8)})
    mapped = torch.UntypedStorage.from_file

    def exchanged(*given: Any, **options: Any) -> Any:
        other.rename(path)
        return mapped(*given, **options)

    monkeypatch.setattr(torch.UntypedStorage, "from_file", exchanged)
    with pytest.raises(LoadError, match=r"a\.safetensors is damaged: another file replaced it"):
        MappedFile(path)


def test_without_direct_reads_the_usual_ones_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system may refuse them, or the system not have them."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    whole = Whole(tmp_path, {"large": torch.randn(CHUNK)})
    monkeypatch.setattr(os, "open", refuse)
    filled = torch.empty(CHUNK)
    past_the_page_cache([Copy(whole.views["large"], filled, whole.file)])
    assert torch.equal(filled, whole.views["large"])


def test_copies_are_made_while_more_are_prepared(tmp_path: Path) -> None:
    """What was given first has arrived before the last is even thought of."""
    first, second = torch.zeros(4), torch.zeros(4)
    with carriers() as carry:
        carry(Copy(torch.ones(4), first, None), CORES)
        deadline = time.monotonic() + 30
        while not first.all() and time.monotonic() < deadline:
            time.sleep(0.001)
        assert first.all()
        carry(Copy(torch.ones(4), second, None), CORES)
    assert second.all()


def test_what_fails_outside_ends_the_threads() -> None:
    """And nothing that was waiting is carried any more."""
    before, carried, gate = threading.active_count(), [], threading.Event()

    def slowly(piece: Copy) -> None:
        carried.append(piece)
        gate.wait(30)

    copy = Copy(torch.ones(4), torch.zeros(4), None)
    crew = Crew(SLOT, [nullcontext(slowly)])
    with pytest.raises(ZeroDivisionError), crew:
        for _ in range(5):
            crew.carry(copy)
        while not carried:
            time.sleep(0.001)
        threading.Timer(0.1, gate.set).start()
        raise ZeroDivisionError
    assert len(carried) == 1
    assert threading.active_count() <= before + 1  # the timer's may take a moment to end
