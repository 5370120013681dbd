"""`conformance repro`: a case as a folder to paste into an upstream issue; it needs none of us."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from conformance.cases.case import VALID, Case, ConfigFolder
from conformance.judge.divergences import DOCUMENTED, INFO_KINDS, TENSOR_KINDS
from conformance.judge.session import Session, header, rerun
from conformance.judge.verdict import verdict
from conformance.observe.loaders import reference
from conformance.observe.observe import observe
from conformance.repro.runtime import (
    TENSOR_FACTS,
    Places,
    dict_places,
    info_places,
    module_places,
    tensor_places,
)
from conformance.repro.script import Expected, script
from conformance.results.records import ERROR, SKIP, Observation, Result
from conformance.spec import clauses

# Prefix of a place to the kind of divergence there; of loading info the field decides.
KINDS = {prefix: TENSOR_KINDS[fact] for fact, prefix in TENSOR_FACTS.items()} | {
    "class of module": "kind-of-tensor",
    "training of": "training",
    "returned:": "config",
    "container of": "config",
    "config field": "config",
    "generation config field": "generation-config",
    "device of module": "device-map",
    "output": "output",
    "state of": "state",
}

ABSENT = "absent"

RUN = (
    "`python repro.py` loads `checkpoint` and prints what is expected and what comes; it needs "
    "nothing but transformers and what that requires, and exits with 1 if anything differs."
)


class NotReproducible(RuntimeError):
    """The case cannot be told without us; the message says why."""


def repro(case: Case, out: Path, session: Session) -> Result:
    """Write `out`, whole or not at all; what stock makes of the case here.

    Raises:
        NotReproducible: the case needs a Hub, is about memory, or has no verdict here.
    """
    if case.hub is not None:
        raise NotReproducible(
            f"{case.id} loads from a Hub: it needs a server, and no folder is one"
        )
    if any(clauses()[identifier].stage == "MEM" for identifier in case.clauses):
        raise NotReproducible(
            f"{case.id} is about the pages of the files while and after it loads: look at them "
            "with /proc/self/smaps"
        )
    wanted, found = (observe(case, loader).observation for loader in (reference, session.loader))
    result = verdict(case, wanted, found, session.judged, rerun(case, session))
    if result.status in (ERROR, SKIP):
        raise NotReproducible(f"{case.id} has no verdict here: {result.reason}")
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        _write(partial, case, expected(case, wanted, found), _about(result, session))
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return result


def expected(case: Case, wanted: Observation, found: Observation) -> Expected:
    """The places in which `found` is not as it should be; if there are none, those that the case is
    about."""
    changed, watched = _state(found), _state(found, everything=_concerns(case, "state"))
    if wanted.exception is not None and case.input_class == VALID:
        return Expected()  # a model: what the release's own class does not give
    if wanted.exception is not None:
        types = wanted.exception["types"]
        raised = next((name for name in types if name in DOCUMENTED), types[0])
        return Expected(raised=raised, state=changed or watched)
    good = places(wanted)
    actual = good if found.exception is not None else places(found)
    every = list(_union(good, actual))
    differing = [place for place in every if _text(good, *place) != _text(actual, *place)]
    if not differing and not changed:
        differing, changed = [p for p in every if _is_about(case, *p)], watched
    return Expected(_only(good, differing), state=changed)


def places(seen: Observation) -> Places:
    """All that a load left."""
    left = {"rng": seen.state["after"]["rng"], **seen.state.get("left", {})}
    return {
        **tensor_places(seen.tensors),
        **module_places(seen.modules),
        **info_places(seen.info),
        **dict_places("config field", seen.config),
        **dict_places("generation config field", seen.generation_config),
        **dict_places("device of module", seen.device_map),
        **dict_places("output", seen.outputs),
        **dict_places("state of", left),
    }


def _union(left: Places, right: Places) -> Iterable[tuple[str, str]]:
    both = [(prefix, name) for side in (left, right) for prefix in side for name in side[prefix]]
    return dict.fromkeys(both)


def _at(found: Places, prefix: str, name: str) -> Any:
    return found.get(prefix, {}).get(name, ABSENT)


def _text(found: Places, prefix: str, name: str) -> str:
    return json.dumps(_at(found, prefix, name), default=str)


def _only(found: Places, chosen: Iterable[tuple[str, str]]) -> Places:
    kept: Places = {}
    for prefix, name in chosen:
        kept.setdefault(prefix, {})[name] = _at(found, prefix, name)
    return kept


def _is_about(case: Case, prefix: str, name: str) -> bool:
    """Whether a cited clause speaks of the place; of a config, only what its file or the load says:
    other fields are the release's."""
    kind = INFO_KINDS.get(name, "config") if prefix == "keys in" else KINDS[prefix]
    if not _concerns(case, kind):
        return False
    return not prefix.endswith("config field") or name in _said(case)


def _concerns(case: Case, kind: str) -> bool:
    return any(kind in clauses()[clause].kinds for clause in case.clauses)


def _said(case: Case) -> set[str]:
    """The config fields that the checkpoint or the options name."""
    found = set(case.options)
    for path in case.source().glob("*config.json"):
        try:
            found |= set(json.loads(path.read_text("utf-8")))
        except (ValueError, TypeError, OSError):  # a case about a config that is none
            continue
    return found - {"transformers_version"}


def _state(found: Observation, everything: bool = False) -> tuple[str, ...]:
    """What of the process the load changed, or all that there is; a load draws random numbers."""
    before, after = (found.state[when] for when in ("before", "after"))
    names = [name for name in before if everything or before[name] != after[name]]
    return tuple(name for name in names if name != "rng" or found.exception is not None)


def _about(result: Result, session: Session) -> list[str]:
    """What is shown, in lines: the case and its verdict, then the clauses."""
    versions = header(session)["versions"]
    known = f" ({result.deviation})" if result.deviation else ""
    told = f"is not what is specified{known}" if result.divergences else "is as specified"
    broken = dict.fromkeys(divergence.clause for divergence in result.divergences)
    shown = [clauses()[identifier] for identifier in broken or result.clauses]
    return [
        f"{result.case}: what transformers {session.release} leaves {told}; "
        f"torch {versions['torch']}, Python {versions['python']}.",
        *(f"{each.id} ({each.level}): {each.statement} Source: {each.source}" for each in shown),
    ]


def _write(folder: Path, case: Case, wanted: Expected, about: list[str]) -> None:
    """Checkpoint, script and README."""
    source = case.source()
    folder.mkdir(parents=True)
    if source.is_dir():
        # What lies beside a fixture belongs to it: a path in it may lead there.
        whole = source.parent if case.folder is None else source
        target = folder if case.folder is None else folder / "checkpoint"
        shutil.copytree(whole, target, symlinks=True, dirs_exist_ok=True)
    for value in case.options.values():
        if isinstance(value, ConfigFolder):
            shutil.copytree(value.path(), folder / "config")
    (folder / "repro.py").write_text(script(case, wanted, about), "utf-8")
    (folder / "README.md").write_text(
        "\n\n".join([about[0], RUN, " ".join(about[1:])]) + "\n", "utf-8"
    )
