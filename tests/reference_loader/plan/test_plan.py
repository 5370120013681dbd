"""The plan: everything decided, nothing read."""

from __future__ import annotations

import json
import re
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from conformance_fixtures.faults.read_and_edit import read_weights
from reference_loader import LoadPlan, from_pretrained, plan
from reference_loader.errors import NotStrict, ShapeMismatch
from reference_loader.fill import pump
from reference_loader.fill.offload import Offloaded, place_fresh
from reference_loader.formats.stored import Format, StoredTensor
from reference_loader.llama import Llama
from reference_loader.model.skeleton import build, put
from reference_loader.plan.decide import decide_action
from reference_loader.plan.decisions import Action

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def read_so_far() -> int:
    """Bytes this process has asked the kernel to read."""
    return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])


def test_no_weight_is_read(checkpoint: Any, unchanged: Any, monkeypatch: Any) -> None:
    folder = checkpoint("llama-f32-3", "missing-head")

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a payload was opened")

    monkeypatch.setattr(pump, "opened", refuse)
    monkeypatch.setattr(torch.UntypedStorage, "from_file", refuse)
    with unchanged(folder):
        assert plan(folder).missing == {HEAD}
    with pytest.raises(AssertionError, match="payload"):
        from_pretrained(folder)


def test_a_large_file_is_planned_from_its_header(own: Any, stretch: Any) -> None:
    """Sparse, 8 GiB: hardly more than the header is read."""
    size = 8 * 2**30
    rows = size // 4 // 32
    folder = own("llama-tied-embedding", vocab_size=rows)
    tensors = read_weights(folder).tensors
    del tensors[EMBEDDING]
    stretch(folder / "model.safetensors", tensors, {EMBEDDING: ("F32", [rows, 32], size)})
    before = read_so_far()
    decided = plan(folder, model_class=Llama)
    assert read_so_far() - before < 2**17
    assert sum(p.nbytes for p in decided.placements) > size


def test_text_is_a_table_that_says_what_will_be_done_and_why(checkpoint: Any) -> None:
    folder = checkpoint("llama-tied-embedding-3", "missing-norm", "unexpected-key")
    lines = str(plan(folder, dtype="bfloat16")).splitlines()
    table = dict(line.split(maxsplit=1) for line in lines)
    assert table["model"] == "LlamaForCausalLM"
    assert table["files"].startswith("3 (")
    assert "model.safetensors.index.json" in table["files"]
    assert table["dtype"] == "torch.bfloat16 (asked for)"
    assert table["device"] == "cpu"
    assert table["tied"] == f"{EMBEDDING} = {HEAD}"
    assert table["initialised"] == table["missing"] == "model.norm.weight"
    assert table["unexpected"] == "model.layers.0.extra.weight"
    assert table["cast"].startswith("28 tensors, ")
    assert len({line.index(table[line.split()[0]]) for line in lines}) == 1  # one column


def test_sizes_are_those_of_the_model(checkpoint: Any) -> None:
    folder = checkpoint("llama-bf16")
    whole = sum(t.numel() for t in read_weights(folder).tensors.values())
    assert re.search(rf"view +30 tensors, {2 * whole:,} bytes", str(plan(folder)))
    wider = str(plan(folder, dtype="float32"))
    assert re.search(rf"cast +30 tensors, {4 * whole:,} bytes", wider)


def test_a_long_list_is_cut_and_counted(own: Any) -> None:
    folder = own("llama-f32", num_hidden_layers=5)
    assert "and 12 more" in str(plan(folder))
    assert "and 12 more" not in json.dumps(plan(folder).to_dict())


@pytest.mark.parametrize(
    ("recipe", "options", "why"),
    [
        ("llama-f32", {}, "declared by the config"),
        ("llama-bf16-undeclared", {}, "'lm_head.weight'"),
        ("llama-mixed-undeclared", {}, "'lm_head.weight'"),
        ("llama-f32", {"dtype": "float16"}, "asked for"),
    ],
)
def test_the_dtype_is_explained(checkpoint: Any, recipe: str, options: Any, why: str) -> None:
    """DTY-1 to DTY-3."""
    assert why in plan(checkpoint(recipe), **options).model_dtype.why


@pytest.mark.parametrize(
    ("recipe", "faults", "key", "names"),
    [
        ("llama-f32", ("missing-norm",), "missing", ["model.norm.weight"]),
        ("llama-f32", ("unexpected-key",), "unexpected", ["model.layers.0.extra.weight"]),
        ("llama-f32", ("wrong-shape",), "mismatched", ["model.layers.0.mlp.up_proj.weight"]),
        (
            "llama-f32-2",
            ("stray-duplicate",),
            "stored_twice",
            ["model.layers.0.input_layernorm.weight"],
        ),
        ("llama-f32-2", ("unlisted-key",), "not_in_the_index", ["model.norm.weight"]),
        (
            "llama-f32-2",
            ("phantom-key",),
            "only_in_the_index",
            ["model.layers.0.mlp.gate_proj.weight"],
        ),
    ],
)
def test_json_holds_every_disagreement_and_so_does_text(
    checkpoint: Any, recipe: str, faults: Any, key: str, names: list[str]
) -> None:
    decided = plan(checkpoint(recipe, *faults))
    content = decided.to_dict()
    assert json.loads(json.dumps(content)) == content
    assert content[key] == names
    assert f"{key.replace('_', ' ')} " in str(decided)
    assert names[0] in str(decided)


def test_json_tells_where_each_tensor_comes_from_and_goes(checkpoint: Any) -> None:
    folder = checkpoint("llama-f32-2")
    content = plan(folder, dtype="float16").to_dict()
    stored = read_weights(folder)
    assert len(content["placements"]) == len(stored.tensors)
    for placed in content["placements"]:
        assert placed["target"] == placed["key"]
        assert placed["file"] == stored.file_of(placed["key"])
        assert placed["shape"] == list(stored.tensors[placed["key"]].shape)
        assert (placed["stored_dtype"], placed["dtype"]) == ("torch.float32", "torch.float16")
        assert placed["action"] == "cast"
        assert placed["bytes"] == stored.tensors[placed["key"]].numel() * 4
    assert content["files"] == sorted(stored.shards)
    assert content["source"] == str(folder)


def test_plan_and_load_tell_the_same(checkpoint: Any) -> None:
    """INF-2, INF-3: the plan's lists are the load's."""
    folder = checkpoint("llama-f32-2", "missing-head", "unexpected-key")
    decided = plan(folder)
    _, info = from_pretrained(folder, output_loading_info=True)
    assert info["missing_keys"] == decided.missing == set(decided.fresh)
    assert info["unexpected_keys"] == decided.unexpected


def test_a_plan_shows_what_a_load_would_refuse(checkpoint: Any) -> None:
    """MIS-4 and strictness are for the load to refuse; the plan is what explains them."""
    folder = checkpoint("llama-f32", "wrong-shape")
    assert [m.name for m in plan(folder, strict=True).mismatched]
    with pytest.raises(ShapeMismatch):
        from_pretrained(folder)
    with pytest.raises(NotStrict):
        from_pretrained(folder, strict=True)


def test_a_plan_cannot_be_changed(checkpoint: Any) -> None:
    decided = plan(checkpoint("llama-f32"))
    assert isinstance(decided, LoadPlan)
    with pytest.raises(FrozenInstanceError):
        decided.dtype = torch.float16  # type: ignore[misc]
    assert decided.disagreements == {}


# What is done with each tensor is decided in the plan.

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def tensor_of(form: Format, viewable: bool = True) -> StoredTensor:
    return StoredTensor("key", Path("file"), torch.float32, (2,), 0, 8, form, viewable=viewable)


@pytest.mark.parametrize("form", Format)
def test_the_action_of_every_format_dtype_and_device(form: Format) -> None:
    """MEM-1, DTY-7, OFF-1, OFF-3."""
    safe = form is Format.SAFETENSORS
    for dtype, on_cpu, on_gpu in [
        (torch.float32, Action.VIEW, Action.COPY),
        (torch.float16, Action.CAST, Action.CAST),
    ]:
        assert decide_action(tensor_of(form), dtype, CPU) is on_cpu
        assert decide_action(tensor_of(form), dtype, GPU) is on_gpu
        assert decide_action(tensor_of(form), dtype, "disk") is (
            Action.OFFLOAD if safe else Action.WRITE
        )
    assert decide_action(tensor_of(form, viewable=False), torch.float32, CPU) is Action.COPY


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_a_plan_for_a_gpu_shows_no_view(checkpoint: Any, dtype: str) -> None:
    """Whether there is one or not."""
    decided = plan(checkpoint("llama-f32-2", "missing-norm"), device_map="cuda:0", dtype=dtype)
    assert {p.action for p in decided.placements} == {"copy" if dtype == "auto" else "cast"}
    assert all(p.waits for p in decided.placements)
    assert "view" not in str(decided) + json.dumps(decided.to_dict())
    assert {str(fresh.device) for fresh in decided.fresh.values()} == {"cuda:0"}
    assert set(decided.to_dict()["buffers"].values()) == {"cuda:0"}
    assert "threads" in str(decided)


@pytest.mark.parametrize("aligned", [True, False], ids=["aligned", "unaligned"])
def test_a_tensor_is_viewed_or_copied_as_planned(own: Any, aligned: bool) -> None:
    """MEM-1: a view lies in the mapped file, and what cannot be one does not."""
    folder = own("llama-f32")
    path = folder / "model.safetensors"
    header, payload = split(path.read_bytes())
    header = header.rstrip().ljust(-(-len(header) // 8) * 8 + 8 + (0 if aligned else 1))
    path.write_bytes(len(header).to_bytes(8, "little") + header + payload)
    decided, model = plan(folder), from_pretrained(folder)
    assert {p.action for p in decided.placements} == {"view" if aligned else "copy"}
    lines = Path("/proc/self/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in lines if str(path) in line]
    for name, parameter in model.named_parameters():
        at = parameter.data_ptr()
        assert any(int(a, 16) <= at < int(b, 16) for a, b in spans) == aligned, name


def split(content: bytes) -> tuple[bytes, bytes]:
    """Header and payload of a safetensors file."""
    end = 8 + int.from_bytes(content[:8], "little")
    return content[8:end], content[end:]


@pytest.mark.parametrize(
    ("fault", "actions"), [("pickled", {"view"}), ("pickled-legacy", {"copy"})]
)
def test_a_pickled_tensor_is_a_view_where_its_format_can_be_mapped(
    checkpoint: Any, fault: str, actions: set[str]
) -> None:
    """FMT-4: the legacy format is one stream."""
    decided = plan(checkpoint("llama-f32", fault))
    assert {p.stored.format for p in decided.placements} == {Format.PICKLE}
    assert {p.action for p in decided.placements} == actions


def test_disk_offload_is_planned(checkpoint: Any) -> None:
    """OFF-1, OFF-3, OFF-5: what stays in its file, what is written, what is initialised there."""
    places = {"model": "cpu", "lm_head": "disk"}
    for faults, expected in ((), "disk offload"), (("pickled",), "disk offload (written)"):
        decided = plan(checkpoint("llama-f32", *faults), device_map=places)
        (head,) = [p for p in decided.placements if p.target == HEAD]
        assert head.action == expected
        assert expected in str(decided)
        assert decided.hooks
    decided = plan(checkpoint("llama-f32", "missing-head"), device_map=places)
    assert decided.fresh[HEAD].device == decided.to_dict()["fresh_devices"][HEAD] == "disk"
    assert {str(device) for device in decided.buffers.values()} == {"cpu"}


def test_what_is_fresh_goes_where_the_plan_says(checkpoint: Any) -> None:
    """PLC-1: parameters and buffers; on meta, which is a device that every machine has."""
    folder = checkpoint("llama-f32", "missing-norm")
    for where in ("meta", {"": "cpu", "model.norm": "meta", "model.rotary_emb": "meta"}):
        decided, skeleton = plan(folder, device_map=where), build_of(folder)
        for name, fresh in decided.fresh.items():
            put(skeleton, name, torch.zeros(fresh.shape))
        place_fresh(decided, skeleton, Offloaded(None))
        devices = {name: skeleton.get_parameter(name).device for name in decided.fresh}
        devices |= {name: skeleton.get_buffer(name).device for name in decided.buffers}
        assert {str(device) for device in devices.values()} == {"meta"}
        assert devices == {n: f.device for n, f in decided.fresh.items()} | decided.buffers


def build_of(folder: Path) -> LlamaForCausalLM:
    return build(lambda: LlamaForCausalLM(LlamaConfig.from_pretrained(folder)), torch.float32).model
