"""What a maintainer asks before an upgrade, of twelve checkpoints of one's own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conformance.releases.targets import interpreter, parse
from tests.conformance.twelve_checkpoints import TWELVE, write

BEFORE = "4.57.6"
SILENCE = 20

# Sixty seconds where a process imports transformers in four; machines differ by two times.
STARTS = 15
A_START = [sys.executable, "-c", "from transformers import LlamaForCausalLM"]


def _seconds_of_children() -> float:
    """Seconds of processor time that the processes started and ended so far have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow
def test_the_twelve_are_answered_on_one_screen(tmp_path: Path) -> None:
    folders = write(tmp_path)
    interpreter(parse(BEFORE))  # made the first time, which is not what is timed
    words = ["compare", BEFORE, "current", *map(str, folders), "--trust-remote-code"]
    before = _seconds_of_children()
    subprocess.run(A_START, check=True)
    start = _seconds_of_children() - before
    before, last = _seconds_of_children(), time.monotonic()
    silence = 0.0
    with subprocess.Popen(
        [sys.executable, "-m", "conformance", *words, "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            now = time.monotonic()
            silence, last = max(silence, now - last), now
            lines.append(line.rstrip())
    used = _seconds_of_children() - before

    assert process.returncode == 1
    header = next(i for i, line in enumerate(lines) if line.startswith("checkpoint "))
    assert lines[header + 1].split()[:2] == ["own-class", "wrong-model"]
    assert "values of scale" in lines[header + 1]
    records = [json.loads(line) for line in (tmp_path / "out/report.jsonl").open()]
    changes = [each for each in records if each["record"] == "change"]
    assert {each["case"].split("/")[1] for each in changes} == TWELVE.keys()
    for each in changes:
        assert each["change"] != "not judged" or each["reason"]
    # On two cores; seconds of processor time do not count those of tests that run beside.
    assert used / 2 < STARTS * start
    assert silence < SILENCE
