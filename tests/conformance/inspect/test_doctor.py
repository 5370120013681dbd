"""`explain --check`: a finding for every planted cause, an error for all that is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conformance import cli
from conformance.cases.case import AUTO, CAUSAL, INVALID, Case
from conformance.cases.catalogue import CASES
from conformance.inspect.doctor import ERROR, NOTE, WARNING, Examined, examine
from conformance.inspect.doctor_table import as_json, summary
from conformance_fixtures.files import write_safetensors
from conformance_fixtures.recipes import RECIPES
from conformance_fixtures.write import materialise
from reference_loader.options import Options

NORM, GATE = "model.norm.weight", "model.layers.0.mlp.gate_proj.weight"
FIRST, LAST = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"

# The fault: severity, kind, file and key of the finding that it must lead to.
PLANTED: dict[str, tuple[str, str, str, str | None]] = {
    "no-weights": (ERROR, "no-weights", "", None),
    "generation-nonsense-value": (ERROR, "bad-config", "generation_config.json", None),
    "no-config": (ERROR, "config-not-found", "config.json", None),
    "config-not-json": (ERROR, "config-not-found", "config.json", None),
    "absent-shard": (ERROR, "shard-not-found", LAST, None),
    "truncated-shard": (ERROR, "bad-tensor-file", LAST, None),
    "entry-overlaps": (ERROR, "bad-tensor-file", LAST, None),
    "index-not-json": (ERROR, "bad-index", INDEX, None),
    "index-key-twice": (ERROR, "bad-index", INDEX, None),
    "index-leads-outside": (ERROR, "unsafe-path", INDEX, None),
    "index-names-a-program": (ERROR, "unsafe-pickle", "pytorch_model.bin", None),
    "index-size-wrong": (NOTE, "total-size", INDEX, None),
    "phantom-key": (ERROR, "phantom-key", INDEX, GATE),
    "unlisted-key": (WARNING, "unlisted-key", INDEX, NORM),
    "stray-duplicate": (WARNING, "stored-twice", LAST, "model.layers.0.input_layernorm.weight"),
    "wrong-shape": (ERROR, "wrong-shape", FIRST, "model.layers.0.mlp.up_proj.weight"),
    "missing-norm": (ERROR, "missing-key", "", NORM),
    "unexpected-key": (WARNING, "leftover-key", "", "model.layers.0.extra.weight"),
    "leftover-inv-freq": (NOTE, "computed-key", "", "model.layers.0.self_attn.rotary_emb.inv_freq"),
    "module-prefix": (ERROR, "nothing-matches", "", None),
    "bin-beside-safetensors": (NOTE, "stray-file", "pytorch_model.bin", None),
    "newer-weights-beside": (WARNING, "partial-download", "newer.part", None),
    "pickled": (NOTE, "pickled", "pytorch_model.bin.index.json", None),
    "norms-narrow": (NOTE, "dtype-mix", "", None),
    "extreme-values": (ERROR, "nan", FIRST, "model.embed_tokens.weight"),
    "payload-is-a-hole": (WARNING, "all-zero", LAST, "lm_head.weight"),
    "dangling-link": (WARNING, "dangling-link", LAST, None),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_leads_to_its_finding(fault: str) -> None:
    severity, kind, file, key = PLANTED[fault]
    found = examine(materialise("llama-f32-2", [fault])).findings
    assert [f for f in found if (f.severity, f.kind, f.file, f.key) == (severity, kind, file, key)]
    assert all(f.told.endswith(".") or f.told for f in found)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_sound_checkpoint_has_no_error_and_no_warning(recipe: str) -> None:
    needed = {f.kind for f in examine(materialise(recipe)).findings if f.severity != NOTE}
    assert needed <= ({"missing-key"} if "neither" in recipe or "untied" in recipe else set())


# Refused because of what is in the folder, and of nothing else.
REFUSED = [
    case
    for case in CASES
    if case.input_class == INVALID
    and case.model in (CAUSAL, AUTO)
    and case.faults
    and not (case.options or case.under or case.given or case.hub)
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
def test_what_the_reference_refuses_is_an_error(case: Case) -> None:
    assert examine(case.source(), Options(model_class=case.model_class())).exit_code == 1


def test_every_finding_at_once_the_worst_first() -> None:
    faults = ("stray-duplicate", "extreme-values", "unexpected-key", "bin-beside-safetensors")
    found = examine(materialise("llama-f32-2", faults)).findings
    assert {"nan", "stored-twice", "leftover-key", "stray-file"} <= {f.kind for f in found}
    order = [(ERROR, WARNING, NOTE).index(f.severity) for f in found]
    assert order == sorted(order)


def test_values_of_a_pickle_are_looked_at_too() -> None:
    found = examine(materialise("llama-f32", ["extreme-values", "pickled"])).findings
    assert ("nan", "model.embed_tokens.weight") in [(f.kind, f.key) for f in found]


def test_a_misplaced_key_is_told_with_where_it_is(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(materialise("llama-f32-2"), tmp_path / "mine"))
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"][NORM] = FIRST
    (folder / INDEX).write_text(json.dumps(index))
    (found,) = [f for f in examine(folder).findings if f.severity != NOTE]
    assert (found.kind, found.key) == ("misplaced-key", NORM)
    assert LAST in found.told


def test_code_and_stray_shards_are_told(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(materialise("llama-f32-2"), tmp_path / "mine"))
    (folder / "modeling_mine.py").write_text("raise SystemExit")
    write_safetensors(folder / "model-00003-of-00003.safetensors", {"x": torch.ones(1)})
    kinds = {(f.severity, f.kind, f.file) for f in examine(folder).findings}
    assert (NOTE, "code", "modeling_mine.py") in kinds
    assert (WARNING, "stray-file", "model-00003-of-00003.safetensors") in kinds


def test_what_is_not_held_against_the_model_is_no_verdict(tmp_path: Path) -> None:
    """A quantised checkpoint: its files are read, its names and shapes are nobody's."""
    folder = Path(shutil.copytree(materialise("llama-f32"), tmp_path / "mine"))
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    examined = examine(folder)
    (found,) = examined.findings
    assert (found.severity, found.kind, found.file) == (WARNING, "not-judged", "config.json")
    assert found.told.startswith("Names, shapes and missing tensors were not judged.")
    assert examined.exit_code == 2
    (folder / "model.safetensors").write_bytes(b"")
    assert examine(folder).exit_code == 1, "an error weighs more"


def test_a_plan_of_a_wrong_shape_says_that_the_load_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = str(materialise("llama-f32", ["wrong-shape"]))
    refused = "A load is refused, shape-mismatch: size mismatch for model.layers.0.mlp.up_proj"
    assert cli.main(["explain", folder]) == 0
    assert refused in capsys.readouterr().out
    assert cli.main(["explain", folder, "--ignore-mismatched-sizes"]) == 0
    assert "refused" not in capsys.readouterr().out


def test_memory_does_not_depend_on_the_size(
    tmp_path: Path, stretch: Callable[..., None], highest_memory: Any
) -> None:
    folder = Path(shutil.copytree(materialise("llama-f32"), tmp_path / "large"))
    size = 1 << 29
    holes = {"hole": ("BF16", [size // 2], size)}
    stretch(folder / "model.safetensors", {}, holes)
    examine(materialise("llama-f32"))  # what happens once is over
    taken: list[int] = []
    with highest_memory(taken):
        examined = examine(folder)
    assert examined.nbytes == size
    assert taken[0] < size // 4


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def main(*arguments: object) -> tuple[int, str]:
        code = cli.main(["explain", "--check", *map(str, arguments)])
        return code, capsys.readouterr().out

    return main


def test_the_exit_code_is_that_of_the_worst(run: Any) -> None:
    assert run(materialise("llama-f32"))[0] == 0
    assert run(materialise("llama-f32", ["unexpected-key"]))[0] == 0
    assert run(materialise("llama-f32", ["extreme-values"]))[0] == 1
    assert run("/nonexistent/nowhere")[0] == 2


def test_the_table_names_file_and_key_and_escapes_them(run: Any) -> None:
    _, out = run(materialise("llama-f32-2", ["odd-keys", "extreme-values"]))
    assert "model.embed_tokens.weight" in out
    assert FIRST in out
    assert "\\x1b[31mred" in out
    assert out.replace("\n", "").isprintable()


def test_as_json_every_finding_is_whole(run: Any) -> None:
    code, out = run(materialise("llama-f32-2", ["odd-keys"]), "--format", "json")
    told = json.loads(out)
    assert (code, told["exit_code"], told["files"]) == (0, 0, 2)
    assert {"severity", "kind", "file", "key", "told", "hint"} == set(told["findings"][0])
    assert "\x1b[31mred\x1b]0;title\x07" in [f["key"] for f in told["findings"]]
    assert "\x1b" not in out


def test_a_folder_is_summed_up_in_a_line() -> None:
    examined = Examined(Path("a\nb"), (), 1, 2, 3000)
    assert summary(examined) == "a\\nb: no problems found; 1 files, 2 tensors, 3,000 bytes"
    assert json.loads(as_json(examined))["findings"] == []
