"""A probe may crash, be killed or hang: that is the case's record, and the next load goes on."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from conformance.cases.own import Own
from conformance.releases.prober import NotObserved, Probe, TargetUnusable, our_packages

OBSERVATION = {"seconds": 1.5}

# Speaks the probe's language and does what the case's name says.
ACTOR = """\
import json, os, signal, sys, time
print(json.dumps({"ready": {"release": "1.0", "arguments": sys.argv[1:]}}), flush=True)
for line in sys.stdin:
    case = json.loads(line)["case"]
    if case == "crash": os._exit(3)
    if case == "kill": os.kill(os.getpid(), signal.SIGKILL)
    if case == "hang": time.sleep(60)
    print(json.dumps({"observation": OBSERVATION | {"info": {"pid": os.getpid()}}}), flush=True)
"""


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A `conformance.releases.probe` that acts."""
    package = tmp_path / "conformance" / "releases"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package.parent / "__init__.py").touch()
    actor = ACTOR.replace("OBSERVATION", repr(OBSERVATION))
    (package / "probe.py").write_text(actor)
    return tmp_path


def test_loads_are_observed_in_one_process(ours: Path) -> None:
    own = Own((Path("a"),))
    with Probe(Path(sys.executable), ours, own=own) as probe:
        first, second = (probe.observe("fine", "stock") for _ in range(2))
        assert probe.ready == {"release": "1.0", "arguments": ["stock", own.to_json()]}
    assert first.seconds == 1.5
    assert first.info == second.info != {"pid": os.getpid()}


@pytest.mark.parametrize(
    ("case", "told"),
    [("crash", "exit code 3"), ("kill", "SIGKILL .out of memory"), ("hang", "within 0.5 seconds")],
)
def test_a_load_that_ends_the_process_is_told_and_the_next_one_goes_on(
    ours: Path, case: str, told: str
) -> None:
    with Probe(Path(sys.executable), ours, seconds=0.5) as probe:
        before = probe.observe("fine", "stock")
        with pytest.raises(NotObserved, match=told):
            probe.observe(case, "stock")
        after = probe.observe("fine", "stock")
    assert before.info != after.info


def test_a_target_without_our_needs_says_why(tmp_path: Path) -> None:
    (tmp_path / "conformance/releases").mkdir(parents=True)
    (tmp_path / "conformance/releases/probe.py").write_text("import no_such_module_at_all")
    with (
        Probe(Path(sys.executable), tmp_path) as probe,
        pytest.raises(TargetUnusable, match=r"exit code 1.*no_such_module_at_all"),
    ):
        probe.start()


def test_our_packages_are_all_that_goes_before_the_targets_path() -> None:
    with our_packages() as ours:
        assert sorted(each.name for each in ours.iterdir()) == [
            "conformance",
            "conformance_fixtures",
            "reference_loader",
        ]
        assert (ours / "conformance/releases/probe.py").is_file()
    assert not ours.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_the_real_probe_observes_what_this_process_does(session, case) -> None:
    from conformance.observe.observe import observe

    wanted = case("tie/different")
    here = observe(wanted, session.loader).observation
    with our_packages() as ours, Probe(Path(sys.executable), ours) as probe:
        there = probe.observe(wanted.id, "stock")
        assert probe.ready["release"] == session.release
    assert json.dumps(there.tensors) == json.dumps(here.tensors)
    assert there.outputs == here.outputs
    assert there.accuracy is not None
    assert 0 < there.accuracy["error"] < 64
