"""A campaign: `PYTHONPATH=. python tests/fuzz/campaign.py header --seconds 300 --corpus DIR`.

Needs atheris (`pip install atheris`), which guides by coverage of our readers and of `json`. The
corpus begins with what the fixtures hold; a finding is left in DIR as `crash-*`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import atheris  # type: ignore[import-not-found]  # of a campaign only

with atheris.instrument_imports(include=["reference_loader", "json"], enable_loader_override=False):
    import json  # noqa: F401

    from fuzz_readers import LARGEST, READERS, Fuzzed

    import reference_loader  # noqa: F401

from fuzz_seeds import seeds
from transformers.utils import logging

DICTIONARY = Path(__file__).with_name("json.dict")


def main() -> None:
    """Run one reader's campaign; libFuzzer ends the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--corpus", type=Path, required=True)
    options = parser.parse_args()
    logging.set_verbosity_error()
    corpus = options.corpus / options.reader
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(options.reader)):
        (corpus / f"seed-{number:03}").write_bytes(seed)
    limits = ["-timeout=5", "-rss_limit_mb=3000", f"-max_len={LARGEST}"]
    told = [f"-max_total_time={options.seconds}", f"-dict={DICTIONARY}", "-print_final_stats=1"]
    place = f"-artifact_prefix={options.corpus}/{options.reader}-"
    atheris.Setup([sys.argv[0], *limits, *told, place, str(corpus)], Fuzzed(options.reader))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
