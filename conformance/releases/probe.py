"""Observe cases by name, inside the environment that is judged.

Runs in a process of its own, which may crash: a line of JSON in for each load, a line out. Imports
nothing beyond the standard library, torch, safetensors, transformers, what these require, and our
own packages.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO

from conformance.cases.catalogue import CASES
from conformance.cases.own import Own, own_cases
from conformance.cases.token_cases import case_of
from conformance.judge.session import header, open_session
from conformance.observe.baseline import baseline
from conformance.observe.loaders import find
from conformance.observe.observe import observe
from conformance.observe.saving import save


def main(arguments: list[str]) -> int:
    """Be the probe: serve until stdin ends; `arguments`: the loader judged, and the user's
    checkpoints as `Own.to_json` writes them."""
    loader, own = arguments[0], Own.from_json(arguments[1])
    sys.path += [own.path] * bool(own.path)
    with _answers() as answers:
        session = open_session(loader)
        _say(answers, {"ready": header(session) | {"release": session.release}})
        cases = [*CASES, *own_cases(own)]
        plain_loads = [plain for case in cases if (plain := baseline(case)) is not None]
        by_id = {case.id: case for case in [*cases, *plain_loads]}
        for request in _requests():
            case = by_id.get(request["case"]) or case_of(request["case"])
            if "into" in request:
                _say(answers, {"saved": save(case, find(request["loader"]), Path(request["into"]))})
                continue
            if "folder" in request:
                case = replace(case, folder=Path(request["folder"]))
            loaded = observe(case, find(request["loader"]), measured=True)
            _say(answers, {"observation": asdict(loaded.observation)})
    return 0


def _answers() -> TextIO:
    """The probe's stdout; whatever libraries print from now on goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _requests() -> Iterator[dict[str, str]]:
    """What the judging process asks the probe, a JSON line each."""
    for line in sys.stdin:
        yield json.loads(line)


def _say(answers: TextIO, message: dict[str, Any]) -> None:
    """Answer the judging process from the probe, by a JSON line."""
    answers.write(json.dumps(message, default=str) + "\n")
    answers.flush()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
