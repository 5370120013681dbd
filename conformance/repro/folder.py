"""`conformance repro`: a case as a folder for an upstream issue; it needs none of our packages."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

from conformance.cases.case import VALID, Case, ConfigFolder
from conformance.judge.divergences import DOCUMENTED, INFO_KINDS, TENSOR_KINDS, compare
from conformance.judge.session import Session, baseline_of, header, rerun
from conformance.judge.verdict import verdict
from conformance.observe.loaders import reference
from conformance.observe.observe import observe
from conformance.repro.script import Expected, script
from conformance.repro.script_functions import (
    TENSOR_FACTS,
    Places,
    dict_places,
    info_places,
    module_places,
    tensor_places,
)
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
    """The case has no script without our packages; the message says why."""


def repro(case: Case, out: Path, session: Session) -> Result:
    """Write the repro's folder, whole or not at all; the verdict on the case in this environment.

    Raises:
        NotReproducible: the case needs a Hub, is about memory, or has no verdict here.
    """
    if case.hub is not None:
        raise NotReproducible(
            f"{case.id} loads from a Hub: it needs a server, which a folder cannot be"
        )
    if any(clauses()[identifier].stage == "MEM" for identifier in case.clauses):
        raise NotReproducible(
            f"{case.id} is about the pages of the files during and after the load: look at them "
            "in /proc/self/smaps"
        )
    wanted, found = (observe(case, loader).observation for loader in (reference, session.loader))
    line = rerun(case, session)
    result = verdict(case, wanted, found, session.judged, line, baseline=baseline_of(case))
    if result.status in (ERROR, SKIP):
        raise NotReproducible(f"{case.id} has no verdict here: {result.reason}")
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        _write_folder(partial, case, expected(case, wanted, found), _about_case(result, session))
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return result


def expected(case: Case, wanted: Observation, found: Observation) -> Expected:
    """The places that a repro compares: where `found` differs; else those the case is about."""
    changed, watched = (
        _state_facts(found),
        _state_facts(found, everything=_is_about_kind(case, "state")),
    )
    if wanted.exception is not None and case.input_class == VALID:
        return Expected()  # a model, which the release's own class does not give
    if wanted.exception is not None:
        types = wanted.exception["types"]
        raised = next((name for name in types if name in DOCUMENTED), types[0])
        return Expected(raised=raised, state=changed or watched)
    good = places(wanted)
    actual = good if found.exception is not None else places(found)
    both = [(prefix, name) for side in (good, actual) for prefix in side for name in side[prefix]]
    every = list(dict.fromkeys(both))
    different = {(each.kind, each.where) for each in compare(wanted, found)}
    differing = [place for place in every if (_kind(*place), place[1]) in different]
    if not differing and not changed:
        differing, changed = [p for p in every if _is_about(case, *p)], watched
    return Expected(_chosen_places(good, differing), state=changed)


def places(seen: Observation) -> Places:
    """Everything that a load left, as the places of a repro."""
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


def _chosen_places(found: Places, chosen: Iterable[tuple[str, str]]) -> Places:
    """The chosen ones of a repro's places."""
    kept: Places = {}
    for prefix, name in chosen:
        kept.setdefault(prefix, {})[name] = found[prefix].get(name, ABSENT)
    return kept


def _kind(prefix: str, name: str) -> str:
    """The kind of divergence at the place of a repro, as `compare` has it."""
    return INFO_KINDS.get(name, "config") if prefix == "keys in" else KINDS[prefix]


def _is_about(case: Case, prefix: str, name: str) -> bool:
    """Whether a cited clause governs the place; of a config, only fields that its file or the load
    names: other fields are the release's."""
    if not _is_about_kind(case, _kind(prefix, name)):
        return False
    return not prefix.endswith("config field") or name in _fields_said(case)


def _is_about_kind(case: Case, kind: str) -> bool:
    """Whether a clause that the repro's case cites is about this kind of divergence."""
    return any(kind in clauses()[clause].kinds for clause in case.clauses)


def _fields_said(case: Case) -> set[str]:
    """The config fields that the checkpoint or the options of a repro's case name."""
    found = set(case.options)
    for path in case.source().glob("*config.json"):
        try:
            found |= set(json.loads(path.read_text("utf-8")))
        except (ValueError, TypeError, OSError):  # a case about a malformed config
            continue
    return found - {"transformers_version"}


def _state_facts(found: Observation, everything: bool = False) -> tuple[str, ...]:
    """The process's facts for a repro: those that the load changed, or all, without RNG state."""
    before, after = (found.state[when] for when in ("before", "after"))
    names = [name for name in before if everything or before[name] != after[name]]
    return tuple(name for name in names if name != "rng" or found.exception is not None)


def _about_case(result: Result, session: Session) -> list[str]:
    """What the repro's script shows, in lines: the case and its verdict, then the clauses."""
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


def _write_folder(folder: Path, case: Case, wanted: Expected, about: list[str]) -> None:
    """Write the repro's folder: checkpoint, script and README."""
    source = case.source()
    folder.mkdir(parents=True)
    if source.is_dir():
        # The folder around a fixture belongs to it: a path in the checkpoint may lead there.
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
