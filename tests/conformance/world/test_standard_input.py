"""Standard input during a load: at its end, counted, and afterwards as it was."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from conformance.world.standard_input import ended_input


def test_whatever_reads_gets_the_end_at_once_and_is_counted() -> None:
    before = sys.stdin
    with ended_input() as asked:
        with pytest.raises(EOFError):
            input("Run the code? ")
        assert sys.stdin.read() == "" and os.read(0, 10) == b""
        assert subprocess.run(["cat"], capture_output=True, check=True, timeout=10).stdout == b""
        assert list(sys.stdin) == []
        assert asked.reads >= 2
    assert sys.stdin is before


def test_it_is_as_before_after_an_error() -> None:
    reading, writing = os.pipe()
    kept = os.dup(0)
    try:
        os.dup2(reading, 0)
        os.write(writing, b"later")
        with pytest.raises(KeyError), ended_input():
            assert os.read(0, 5) == b""
            raise KeyError
        assert os.read(0, 5) == b"later"
    finally:
        os.dup2(kept, 0)
        for each in (kept, reading, writing):
            os.close(each)


def test_a_process_without_a_standard_input() -> None:
    code = (
        "import os; os.close(0)\n"
        "from conformance.world.standard_input import ended_input, end_input\n"
        "with ended_input(): pass\n"
        "end_input(); print(os.read(0, 1))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "b''\n"
