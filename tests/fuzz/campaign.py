"""A campaign: `PYTHONPATH=. python tests/fuzz/campaign.py header --seconds 300 --corpus DIR`.

Needs atheris (`pip install atheris`), which guides by coverage of our readers and of what they hand
the bytes to. The corpus begins with what the fixtures hold; a finding is left in DIR as `READER-*`.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import atheris  # type: ignore[import-not-found]  # of a campaign only

with atheris.instrument_imports(include=["reference_loader", "json"], enable_loader_override=False):
    import json  # noqa: F401

    import reference_loader  # noqa: F401
    from tests.fuzz.fuzz_readers import LARGEST, READERS, Finding, Fuzzed

from torch._weights_only_unpickler import Unpickler
from transformers.utils import logging

from tests.fuzz.fuzz_seeds import seeds

DICTIONARY = Path(__file__).with_name("json.dict")


def keeping(read: Fuzzed, folder: Path) -> Callable[[bytes], None]:
    """The reader, and what it finds in the folder; atheris itself keeps nothing on every build."""

    def once(content: bytes) -> None:
        try:
            read(content)
        except Finding:
            name = hashlib.sha256(content).hexdigest()[:12]
            (folder / f"{read.name}-{name}").write_bytes(content)
            raise

    return once


def main() -> None:
    """Run one reader's campaign; libFuzzer ends the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--corpus", type=Path, required=True)
    options = parser.parse_args()
    logging.set_verbosity_error()
    Unpickler.load = atheris.instrument_func(Unpickler.load)
    corpus = options.corpus / options.reader
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(options.reader)):
        (corpus / f"seed-{number:03}").write_bytes(seed)
    limits = ["-timeout=5", "-rss_limit_mb=3000", f"-max_len={LARGEST}"]
    told = [f"-max_total_time={options.seconds}", f"-dict={DICTIONARY}", "-print_final_stats=1"]
    reader = keeping(Fuzzed(options.reader), options.corpus)
    atheris.Setup([sys.argv[0], *limits, *told, str(corpus)], reader)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
