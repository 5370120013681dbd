"""Judge cases: observe reference and loader, compare, look up what is known."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from conformance import diagnose
from conformance.case import ACCEPTABLE, INVALID, Case
from conformance.cases import CASES
from conformance.compare import compare
from conformance.deviations import deviations, known
from conformance.loaders import Loader, find, reference
from conformance.observe import Loaded, observe, warm_up
from conformance.records import AGREE, DIVERGE, ERROR, KNOWN, SKIP, Observation, Result
from conformance.spec import clause_for

PACKAGES = ("torch", "transformers", "accelerate", "safetensors", "huggingface_hub")


@dataclass(frozen=True)
class Session:
    """What is judged, and against which release."""

    loader_name: str
    loader: Loader
    release: str

    @property
    def target(self) -> str:
        """The environment: this one."""
        return "current"


def open_session(loader_name: str) -> Session:
    """Find the loader and let what happens once in a process happen.

    Raises:
        UnknownLoader: see `loaders.find`.
    """
    # A path that is no folder must not become a question to a Hub.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    session = Session(loader_name, find(loader_name), version("transformers"))
    first = next(case for case in CASES if case.greedy)
    warm_up(first, reference, session.loader)
    return session


def judge_all(cases: Iterable[Case], session: Session) -> Iterator[Result]:
    """The verdicts, one at a time."""
    for case in cases:
        yield judge(case, session)


def judge(case: Case, session: Session) -> Result:
    """The verdict on one case. Never raises for what a loader does."""
    started = time.perf_counter()
    result = Result(
        case.id, case.clauses, case.input_class, session.target, AGREE, rerun=rerun(case, session)
    )
    try:
        expected = _expected(case)
        judged = observe(case, session.loader)
    except NotApplicable as cause:
        return replace(result, status=SKIP, reason=str(cause))
    except Exception as cause:
        reason = f"{type(cause).__name__}: {cause}"
        return replace(result, status=ERROR, reason=reason, seconds=time.perf_counter() - started)
    verdict = _verdict(case, session, expected.observation, judged, result)
    return replace(verdict, seconds=round(time.perf_counter() - started, 4))


class NotApplicable(Exception):
    """A checkpoint of the user's has no model of the class that the case asks for."""


class ReferenceFails(Exception):
    """The reference itself breaks a clause, so there is nothing to judge against."""


def _expected(case: Case) -> Loaded:
    """What the reference leaves; the model itself is let go, to hold one at a time."""
    loaded = observe(case, reference)
    found, exception = loaded.observation.findings, loaded.observation.exception
    if found:
        raise ReferenceFails(f"the reference breaks {found[0].clause}: {found[0]}")
    if exception is not None and case.folder and "UnknownModelClass" in exception["types"]:
        raise NotApplicable(exception["message"])
    if (exception is not None) != (case.input_class == INVALID):
        told = f"{exception['types'][0]}: {exception['message']}" if exception else "no error"
        raise ReferenceFails(f"the reference, given {case.input_class} input: {told}")
    if exception is not None:
        unnamed = [name for name in case.names if name not in exception["message"]]
        if unnamed or "LoadError" not in exception["types"]:
            raise ReferenceFails(f"the reference's error {exception} does not name {unnamed}")
    return Loaded(loaded.observation, None)


def _verdict(
    case: Case, session: Session, expected: Observation, judged: Loaded, result: Result
) -> Result:
    actual = judged.observation
    found = compare(expected, actual, case.names, case.input_class == ACCEPTABLE)
    # What an absolute check objects to needs no second mention by comparison.
    seen = {(d.kind, d.where) for d in actual.findings}
    differences = [d for d in found if (d.kind, d.where) not in seen]
    cited = [replace(d, clause=clause_for(d.kind, case.clauses)) for d in differences]
    divergences = (*actual.findings, *cited)
    result = replace(result, divergences=divergences, digest=digest(actual))
    if not divergences:
        return result
    covering = None
    if session.loader_name != "reference":
        covering = known(divergences, case.id, session.release, deviations())
    if covering is not None:
        names = ", ".join(deviation.id for deviation in covering)
        return replace(result, status=KNOWN, deviation=names, reason=covering[0].reason)
    explained = diagnose.explain(case, divergences, judged.model)
    return replace(result, status=DIVERGE, divergences=explained)


def digest(observation: Observation) -> str:
    """One word for all that a load left, time and memory aside."""
    facts = asdict(replace(observation, seconds=0.0, peak_bytes=0))
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def rerun(case: Case, session: Session) -> str:
    """The line that reruns just this case."""
    words, case_glob = ["conformance", "check"], case.id
    if case.folder is not None and case.id.startswith("own/"):
        words.append(str(case.folder))
        # A checkpoint's name is its user's; the form of the load tells its cases apart.
        case_glob = f"*/{case.id.rpartition('/')[2]}"
    words += ["--case", case_glob]
    if session.loader_name != "stock":
        words += ["--loader", session.loader_name]
    return shlex.join(words)


def header(session: Session) -> dict[str, Any]:
    """What a report says of its run."""
    return {
        "target": session.target,
        "loader": session.loader_name,
        "versions": {"python": platform.python_version(), **_versions()},
        "platform": platform.platform(),
        "device": "cpu",
    }


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found
