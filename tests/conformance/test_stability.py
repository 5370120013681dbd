"""No false alarms: an honest copy of stock gets the same verdicts however the suite is run.

In any order, under one thread and two, alone and with pytest-xdist, with its fixtures written
before or as they are asked for. `make test-stable` runs twenty rounds of all cases, a plain run of
the tests two of every sixteenth.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from conformance.cases.catalogue import CASES

ROOT = Path(__file__).parents[2]
ROUNDS = int(os.environ.get("STABILITY_ROUNDS", "0"))
CHOSEN = CASES if ROUNDS else CASES[::16]

# Case to what became of it: the outcome, and the known deviations.
Verdicts = dict[str, tuple[str, str]]


@dataclass(frozen=True)
class Round:
    """One run of the suite.

    Attributes:
        seed: of the order.
        threads: of torch.
        workers: of pytest-xdist; 0 for a run without it.
        cold: whether the cache of fixtures is empty.
    """

    seed: int
    threads: int
    workers: int
    cold: bool

    def __str__(self) -> str:
        """The name of its test."""
        together = f"{self.workers}-workers" if self.workers else "alone"
        cache = "cold" if self.cold else "warm"
        return f"order-{self.seed}-{self.threads}-threads-{together}-{cache}"


COMBINATIONS = list(itertools.product((1, 2), (0, 2), (False, True)))

# Five steps of eight come by every combination, and by the second round by threads and cache.
FIRST, *OTHERS = [Round(n, *COMBINATIONS[5 * n % 8]) for n in range(ROUNDS or 2)]


def verdicts(round_: Round, folder: Path) -> Verdicts:
    """Run the suite in a process of its own."""
    report = folder / "junit.xml"
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    words += [
        "-p",
        "tests.conformance.shuffled",
        "conformance/cases/catalogue.py",
        f"--junitxml={report}",
    ]
    words += ["--conformance-loader", "conformance.mutants:honest"]
    words += [word for case in CHOSEN for word in ("--conformance-case", case.id)]
    words += ["-n", str(round_.workers)] if round_.workers else []
    settings = {
        "SHUFFLED_BY": str(round_.seed),
        "OMP_NUM_THREADS": str(round_.threads),
        "OMP_WAIT_POLICY": "passive",  # threads that spin while they wait hold up a busy machine
    }
    if round_.cold:
        settings["FROM_PRETRAINED_CONFORMANCE_CACHE"] = str(folder / "cache")
    environment = os.environ | settings
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert report.is_file(), (done.stdout + done.stderr).decode()
    return dict(map(_verdict, ElementTree.parse(report).iter("testcase")))


def _verdict(case: ElementTree.Element) -> tuple[str, tuple[str, str]]:
    told = [each for each in case if each.tag in ("failure", "error", "skipped")]
    if not told:
        return case.attrib["name"], ("agree", "")
    return case.attrib["name"], (told[0].tag, f"{told[0].get('message')} {told[0].text or ''}")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    """The verdicts of the first round, which all others must repeat."""
    return verdicts(FIRST, tmp_path_factory.mktemp("first"))


@pytest.mark.slow
def test_an_honest_copy_agrees_or_its_deviation_is_known(first: Verdicts) -> None:
    assert first.keys() == {case.id for case in CHOSEN}
    alarms = {
        name: told
        for name, (outcome, told) in first.items()
        if outcome != "agree" and not told.startswith("known deviation ")
    }
    assert alarms == {}


@pytest.mark.slow
@pytest.mark.parametrize("round_", OTHERS, ids=str)
def test_every_round_gives_the_same_verdicts(
    round_: Round, first: Verdicts, tmp_path: Path
) -> None:
    if round_.workers and importlib.util.find_spec("xdist") is None:
        pytest.skip("pytest-xdist is not installed")

    found = verdicts(round_, tmp_path)

    assert found.keys() == first.keys()
    assert {name: told for name, told in found.items() if told != first[name]} == {}


@pytest.mark.parametrize(
    ("inside", "verdict"),
    [
        ("", ("agree", "")),
        ("<properties/>", ("agree", "")),
        (
            '<failure message="no">res/single: diverge</failure>',
            ("failure", "no res/single: diverge"),
        ),
        (
            '<skipped type="pytest.xfail" message="known deviation a: b"/>',
            ("skipped", "known deviation a: b "),
        ),
        ('<error message="failed on setup">trace</error>', ("error", "failed on setup trace")),
    ],
    ids=["agrees", "has-properties", "diverges", "known", "error"],
)
def test_a_verdict_is_read_with_all_that_is_said_of_it(
    inside: str, verdict: tuple[str, str]
) -> None:
    case = ElementTree.fromstring(f'<testcase name="res/single">{inside}</testcase>')

    assert _verdict(case) == ("res/single", verdict)


def test_the_rounds_are_of_every_kind() -> None:
    rounds = [Round(n, *COMBINATIONS[5 * n % 8]) for n in range(20)]

    kinds = {(each.threads, each.workers, each.cold) for each in rounds}
    assert kinds == set(COMBINATIONS)
    assert len({each.seed for each in rounds}) == len(set(map(str, rounds))) == 20
