"""Judge cases: observe the reference and the loader, then reach a verdict on what they left."""

from __future__ import annotations

import importlib.util
import platform
import shlex
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from conformance.cases.case import Case
from conformance.cases.catalogue import CASES
from conformance.deviations import ARCH
from conformance.judge import diagnose
from conformance.judge.verdict import Judged, blank, ended, verdict
from conformance.observe.baseline import baseline
from conformance.observe.loaders import Loader, find, reference
from conformance.observe.observe import observe, warm_up
from conformance.results.records import DIVERGE, ERROR, SKIP, Observation, Result
from conformance.world.gpus import described, lacks, prepare
from conformance.world.hub_world import stay_offline

# Whose load it is that begins.
REFERENCE, LOADER = "reference", "loader"

PACKAGES = ("torch", "transformers", "accelerate", "safetensors", "huggingface_hub")


def _nobody(who: str) -> None:
    """Nobody is told whose load begins."""


@dataclass(frozen=True)
class Session:
    """What is judged, and against which release."""

    loader_name: str
    loader: Loader
    release: str
    device: str = "cpu"

    @property
    def target(self) -> str:
        """The environment: this one."""
        return "current"

    @property
    def judged(self) -> Judged:
        """The judged loader, for `verdict`."""
        return Judged(self.loader_name, self.release, self.target)


def open_session(loader_name: str, device: str = "cpu") -> Session:
    """Find the loader, and load once with both: some things happen once in a process.

    Raises:
        UnknownLoader: see `loaders.find`.
    """
    session = find_session(loader_name, device)
    prepare_session(session)
    return session


def find_session(loader_name: str, device: str = "cpu") -> Session:
    """Find the loader; nothing is loaded yet.

    Raises:
        UnknownLoader: see `loaders.find`.
    """
    return Session(loader_name, find(loader_name), version("transformers"), device)


def prepare_session(session: Session, loading: Callable[[str], None] = _nobody) -> None:
    """Load once with both; `loading` is told who loads, as in `judge`."""
    # A path that is no folder must not become a request to a Hub.
    stay_offline()
    prepare(session.device)
    first = next(case for case in CASES if case.greedy)
    for name, loader in ((REFERENCE, reference), (LOADER, session.loader)):
        loading(name)
        warm_up(first, loader)


def judge_all(cases: Iterable[Case], session: Session) -> Iterator[Result]:
    """The verdicts, one at a time."""
    for case in cases:
        yield judge(case, session)


def _of_other_releases(case: Case) -> str:
    """Why the installed release has no such case; empty if it has."""
    there = not case.needs or importlib.util.find_spec(case.needs) is not None
    return "" if there else f"the installed release has no {case.needs}"


def judge(case: Case, session: Session, loading: Callable[[str], None] = _nobody) -> Result:
    """The verdict on one case. Raises nothing for what a loader does.

    Args:
        case: what is loaded.
        session: the loader that is judged.
        loading: is told before each load whose it is, `REFERENCE` or `LOADER`.
    """
    started = time.perf_counter()
    line = rerun(case, session)
    if case.unfit:
        return replace(blank(case, session.judged, line), status=ERROR, reason=case.unfit)
    if lacking := lacks(case) or _of_other_releases(case):
        return replace(blank(case, session.judged, line), status=SKIP, reason=lacking)
    try:
        loading(REFERENCE)
        expected = expectation(case)
        plain = baseline_of(case)
    except Exception as cause:
        reason = f"{type(cause).__name__}: {cause}"
        return replace(blank(case, session.judged, line), status=ERROR, reason=reason)
    try:
        loading(LOADER)
        judged = observe(case, session.loader)
    except Exception as cause:  # the reference's model could be observed
        told = f"{type(cause).__name__}: {cause}"
        result = ended(blank(case, session.judged, line), session.judged, "no-model", told)
    else:
        result = verdict(case, expected, judged.observation, session.judged, line, baseline=plain)
        if result.status == DIVERGE:
            loading(LOADER)  # its model runs once more
            explained = diagnose.explain(case, result.divergences, judged.model)
            result = replace(result, divergences=explained)
    return replace(result, seconds=round(time.perf_counter() - started, 4))


def expectation(case: Case) -> Observation:
    """What the reference leaves, without the model: one is in memory at a time."""
    return observe(case, reference).observation


def baseline_of(case: Case) -> Observation | None:
    """What the reference leaves of the case's plain load, if the case is held against one."""
    plain = baseline(case)
    return None if plain is None else expectation(plain)


def rerun(case: Case, session: Session) -> str:
    """The line that reruns just this case."""
    words, case_glob = ["conformance", "check"], case.id
    if case.folder is not None and case.id.startswith("own/"):
        words.append(str(case.folder))
        # The user names the checkpoint; the form of the load distinguishes its cases.
        form = case.id.rpartition("/")[2]
        case_glob = f"*/{form}"
        words += ["--model-class", case.model] * (bool(case.model) and not case.optional)
        words += ["--trust-remote-code"] * (case.options.get("trust_remote_code") is True)
    if case.id.startswith(ARCH):
        words += ["--arch", case.id.split("/")[1]]
    words += ["--case", case_glob]
    if session.loader_name != "stock":
        words += ["--loader", session.loader_name]
    if case.device != "cpu":
        words += ["--device", case.device]
    return shlex.join(words)


def header(session: Session) -> dict[str, Any]:
    """The header of a report: target, loader, versions, platform, device."""
    return {
        "target": session.target,
        "loader": session.loader_name,
        "versions": {"python": platform.python_version(), **_versions()},
        "platform": platform.platform(),
        "device": described(session.device),
    }


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found
