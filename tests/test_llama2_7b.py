"""The checkpoint of Llama-2-7B's geometry: what its files hold, and that they stay as written."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from fixtures import llama2_7b
from fixtures.llama2_7b import (
    DIGESTS,
    LLAMA2_7B,
    Geometry,
    NotAsWritten,
    rotary_frequencies,
    shapes,
    shards,
    total_size,
    written,
)
from reference_loader import from_pretrained, plan
from reference_loader.errors import LoadError

TINY = Geometry(layers=3, hidden=64, intermediate=96, heads=4, vocabulary=160, shard_bytes=200_000)
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INV_FREQ = "self_attn.rotary_emb.inv_freq"


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return found


def rewrite(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")


def test_the_published_geometry() -> None:
    """The numbers are those of the published index and config."""
    named = shapes(LLAMA2_7B)
    weights = {key: math.prod(shape) for key, shape in named.items() if INV_FREQ not in key}
    assert (len(weights), sum(weights.values())) == (291, 6_738_415_616)
    assert len(named) == 291 + 32
    assert total_size(LLAMA2_7B) == 13_476_835_328
    sizes = {
        name: sum(2 * math.prod(named[key]) for key in keys)
        for name, keys in shards(LLAMA2_7B).items()
    }
    assert sizes == {FIRST: 9_976_548_352, SECOND: 3_500_286_976}
    assert shards(LLAMA2_7B)[SECOND][0] == "model.layers.24.self_attn.q_proj.weight"
    assert rotary_frequencies(LLAMA2_7B).shape == (64,)
    assert DIGESTS.keys() <= sizes.keys()


def test_the_files(tmp_path: Path) -> None:
    """Published names, index and header say the same, and nothing else is there."""
    folder = written(tmp_path / "tiny", TINY)
    assert {path.name for path in folder.iterdir()} == {
        FIRST,
        SECOND,
        "config.json",
        "model.safetensors.index.json",
        "SHA256SUMS",
    }
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": total_size(TINY)}
    assert list(index["weight_map"]) == sorted(shapes(TINY))
    assert {n: [k for k, s in index["weight_map"].items() if s == n] for n in (FIRST, SECOND)} == {
        name: sorted(keys) for name, keys in shards(TINY).items()
    }
    found = tensors(folder)
    assert {key: tuple(tensor.shape) for key, tensor in found.items()} == shapes(TINY)
    assert {tensor.dtype for tensor in found.values()} == {torch.float16}


def test_the_values(tmp_path: Path) -> None:
    """Finite, of the deviation that is said, and of no tensor those of another."""
    found = tensors(written(tmp_path / "tiny", TINY))
    for key, tensor in found.items():
        exact = tensor.double()
        if key.endswith(INV_FREQ):
            assert torch.equal(exact, 10000.0 ** (-torch.arange(0, 16, 2).double() / 16).half())
        elif key.endswith("norm.weight"):
            assert 1 <= exact.min() < exact.max() < 1.125
        else:
            assert exact.abs().min() >= 2**-6
            assert exact.abs().max() < 2**-5
            assert exact.square().mean().sqrt() == pytest.approx(0.0239, abs=0.0005)
            assert exact.mean().abs() < 5 * 0.0239 / math.sqrt(exact.numel())
    drawn = [t.flatten()[:64].tolist() for key, t in found.items() if INV_FREQ not in key]
    assert len({tuple(values) for values in drawn}) == len(drawn)


def test_they_are_the_same_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On every machine, in whatever chunks and by however many threads."""
    sums = (written(tmp_path / "whole", TINY) / "SHA256SUMS").read_text()
    monkeypatch.setattr(llama2_7b, "CHUNK", 1024)
    monkeypatch.setattr(llama2_7b, "MAKERS", 1)
    assert (written(tmp_path / "chunks", TINY) / "SHA256SUMS").read_text() == sums
    assert hashlib.sha256(sums.encode()).hexdigest()[:16] == "ab4e23ecad8c03d5"


def test_the_sums_are_those_of_sha256sum(tmp_path: Path) -> None:
    folder = written(tmp_path / "tiny", TINY, pickled=True)
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    assert len(lines) == 4
    for digest, name in (line.split("  ") for line in lines):
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_the_pickled_files_hold_the_same(tmp_path: Path) -> None:
    """Each tensor in a storage of its own, so that a file is as large as its tensors."""
    folder = written(tmp_path / "tiny", TINY)
    written(folder, TINY, pickled=True)
    index = json.loads((folder / "pytorch_model.bin.index.json").read_text())
    plain = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["metadata"] == plain["metadata"]
    found: dict[str, torch.Tensor] = {}
    for name in ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"):
        held = torch.load(folder / name, weights_only=True)
        assert {key for key, file in index["weight_map"].items() if file == name} == held.keys()
        assert (folder / name).stat().st_size < 1.3 * sum(t.nbytes for t in held.values())
        found |= held
    for key, tensor in tensors(folder).items():
        assert torch.equal(found[key], tensor)


def test_what_is_there_is_checked_and_not_written_again(tmp_path: Path) -> None:
    folder = written(tmp_path / "tiny", TINY)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    written(folder, TINY)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_hollow_one_is_the_same_to_those_who_read_headers(tmp_path: Path) -> None:
    solid, hollow = written(tmp_path / "solid", TINY), llama2_7b.hollow(tmp_path / "hollow", TINY)
    for path in hollow.iterdir():
        assert path.stat().st_size == (solid / path.name).stat().st_size
        assert path.suffix == ".safetensors" or path.read_text() == (solid / path.name).read_text()
    assert {name: t.shape for name, t in tensors(hollow).items()} == {
        name: t.shape for name, t in tensors(solid).items()
    }


CARD = 24 * 2**30


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of Llama-2-7B but its values."""
    folder = llama2_7b.hollow(tmp_path_factory.mktemp("7b") / "hollow")
    assert sum(path.stat().st_blocks for path in folder.iterdir()) * 512 < 10**6
    return folder


@pytest.mark.parametrize(
    ("dtype", "size", "places"),
    [
        ("float16", 13_476_831_232, {"0"}),
        ("bfloat16", 13_476_831_232, {"0"}),
        ("float32", 26_953_662_464, {"0", "disk"}),
    ],
)
def test_the_plan_says_what_fits_a_card_of_24_gib(
    headers: Path, dtype: str, size: int, places: set[str]
) -> None:
    """In float32 it is 25.1 GiB; the plan knows it from the headers, on a machine without GPU."""
    budgets = {0: CARD, "cpu": 0}
    decided = plan(headers, dtype=dtype, device_map="auto", max_memory=budgets)
    assert sum(placement.nbytes for placement in decided.placements) == size
    assert len(decided.placements) == 291
    assert set(map(str, decided.device_map.values())) == places
    on_gpu = sum(p.nbytes for p in decided.placements if p.device != "disk")
    assert (on_gpu == size) == (size < CARD)
    assert on_gpu <= CARD
    assert not decided.disagreements
    assert len(decided.ignored) == 32, "the frequencies that the published files hold"


def test_float32_is_refused_for_a_card_of_24_gib(headers: Path) -> None:
    """PLC-10: before a weight is read or a GPU is asked for, with what to do instead."""
    with pytest.raises(LoadError, match=r"26,953,662,464 bytes on cuda:0.*25,769,803,776") as told:
        from_pretrained(headers, dtype="float32", device_map="cuda", max_memory={0: "24GiB"})
    assert "a smaller `dtype`" in str(told.value)


@pytest.mark.parametrize("name", [FIRST, SECOND, "pytorch_model-00002-of-00002.bin"])
def test_a_changed_bit_is_seen(tmp_path: Path, name: str) -> None:
    folder = written(tmp_path / "tiny", TINY, pickled=True)
    content = bytearray((folder / name).read_bytes())
    content[-5] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(NotAsWritten, match=name):
        written(folder, TINY)


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(NotAsWritten, match="no checkpoint of ours"):
        written(tmp_path / "other", TINY)
    with pytest.raises(NotAsWritten, match="another geometry"):
        written(written(tmp_path / "tiny", TINY), Geometry(layers=1))


def test_other_numbers_than_those_of_the_figures_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generator that has changed leaves nothing behind."""
    monkeypatch.setattr(llama2_7b, "LLAMA2_7B", TINY)
    monkeypatch.setattr(llama2_7b, "DIGESTS", {FIRST: "0" * 64})
    with pytest.raises(NotAsWritten, match=FIRST):
        written(tmp_path / "tiny", TINY)
    assert [path.name for path in tmp_path.iterdir()] == [".tiny.lock"]


def test_a_killed_writer_leaves_nothing_that_counts(tmp_path: Path) -> None:
    partial = tmp_path / ".tiny.partial"
    partial.mkdir()
    (partial / FIRST).write_bytes(b"half")
    assert (written(tmp_path / "tiny", TINY) / FIRST).stat().st_size > 100_000
    assert not partial.exists()


PEAK = """
import sys
from pathlib import Path
from fixtures import llama2_7b
from fixtures.llama2_7b import Geometry, written

def peak():
    # Of this program: getrusage would count what its parent held as well.
    text = Path("/proc/self/status").read_text("ascii")
    return int(text.partition("VmHWM:")[2].split(maxsplit=1)[0]) * 1024

llama2_7b.CHUNK = 2**20
before = peak()
written(Path(sys.argv[1]), Geometry(1, 1024, 4096, 8, 16384))
print(peak() - before)
"""


def test_memory_is_bounded(tmp_path: Path) -> None:
    """100 MB in chunks of 1 MiB: what is held at once are some chunks, not the file."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "one")],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert (tmp_path / "one" / "model-00001-of-00001.safetensors").stat().st_size > 10**8
    assert int(done.stdout) < 30 * 2**20
    assert done.stderr == "", "no bar in a log"


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(llama2_7b, "Geometry", lambda layers: TINY)
    assert llama2_7b.main([str(tmp_path / "tiny"), "--layers", "3", "--bin"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'tiny'}\n"
    assert (tmp_path / "tiny" / "pytorch_model.bin.index.json").exists()
    rewrite(tmp_path / "tiny" / "config.json", "silu", "gelu")
    assert llama2_7b.main([str(tmp_path / "tiny")]) == 2
    assert "another geometry" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        llama2_7b.main([str(tmp_path), "--layers", "0"])


def test_both_loaders_take_it(tmp_path: Path, same_models: Any) -> None:
    """Every key, and what nobody has a place for is nobody's concern."""
    from transformers import LlamaForCausalLM

    folder = written(tmp_path / "tiny", TINY)
    ours, info = from_pretrained(folder, output_loading_info=True)
    same_models(ours, LlamaForCausalLM.from_pretrained(folder, torch_dtype="auto"))
    assert not any(info.values())
    with torch.no_grad():
        assert ours(torch.arange(8)[None]).logits.isfinite().all()
