"""The plain data that observing, comparing and reporting pass along, and how a run is kept."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TextIO

from conformance.results.impacts import gravest, of_kind

SCHEMA = 1

# The type of what is noted as the exception of a load that returned something that is no model.
NO_MODEL = "NoModel"

AGREE, DIVERGE, KNOWN, SKIP, ERROR = "agree", "diverge", "known", "skip", "error"


@dataclass(frozen=True)
class Observation:
    """What a load left: plain data, no tensors.

    Attributes:
        exception: type names from the raised class to `BaseException`, and the message; or None.
        tensors: name to the facts of a parameter or buffer.
        modules: name to class name and training flag.
        info: loading-info field to container and values; None if none was returned.
        config, generation_config: as dicts.
        device_map: `hf_device_map`, if the model has one.
        outputs: output name to the facts of a tensor, or a list of tokens.
        accuracy: how close the logits are to float64, as `float64.accuracy` says; or None.
        state: the state of the process, before and after; what was left in the offload folder.
        asked: the requests to the Hub: file to bytes of its content that were sent.
        details: name to the facts of a tensor that only absolute checks read, as
            `tensor_details.observe_details` says.
        logits: every logit, where the case is about them (OUT-2, CNV-8); or None.
        threads: what each of several loads at once did, as `threads.load_in_threads` says.
        gradients: parameter to the facts of its gradient, as `gradients.observe_gradients` says, in
            cases of USE-1 and USE-2.
        usage: clause to what can be done with the model: place to what must be and what is, as
            `usage.observe_usage` says.
        mappings: how many mappings of the checkpoint's files are left (MEM-2); or None.
        resident_bytes: the most bytes of mapped files that were resident at once (MEM-3); or None.
        types: place in the config, the generation config, the device map or the loading info to the
            type that stands there, as `value_types.observe_types` says.
        messages: `kinds`, the level and logger of each log record and the category of each warning;
            `secret`, where the token of the caller was told.
        seconds: wall time of the load.
        peak_bytes: how far the load raised the process's peak of resident memory.
    """

    exception: Mapping[str, Any] | None = None
    tensors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    modules: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    info: Mapping[str, Mapping[str, Any]] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    generation_config: Mapping[str, Any] | None = None
    device_map: Mapping[str, str] | None = None
    outputs: Mapping[str, Any] = field(default_factory=dict)
    accuracy: Mapping[str, Any] | None = None
    state: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    asked: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    logits: Sequence[float] | None = None
    threads: Sequence[Mapping[str, Any]] = ()
    gradients: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    usage: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict)
    mappings: int | None = None
    resident_bytes: int | None = None
    types: Mapping[str, str] = field(default_factory=dict)
    messages: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seconds: float = 0.0
    peak_bytes: int = 0

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Observation:
        """An observation from its record, which was written as JSON."""
        return cls(**record)


@dataclass(frozen=True)
class Divergence:
    """One difference between what a loader left and what the specification says.

    `clause` is the clause it breaks, `detail` the numbers that explain it, once known; `impact`
    what it does to its user, `deviation` the id of the known deviation that accounts for it; both
    are empty until the result is classified. `right` says, of a change, which of the two releases
    keeps to the specification there: "first", "second", "both", "neither"; empty where that is not
    known.
    """

    kind: str
    where: str
    expected: Any
    actual: Any
    clause: str = ""
    detail: str = ""
    impact: str = ""
    deviation: str = ""
    right: str = ""


@dataclass(frozen=True)
class KnownDeviation:
    """A known deviation as it was when a run was made.

    Attributes:
        id, clause: its name, and the clause it breaks; the clause is empty in an old report.
        impact: what it does to its user, one of `IMPACTS`.
        reason: what happens, in the release that was judged.
        upstream: the thread about it; "none found" if there is none.
    """

    id: str
    clause: str
    impact: str
    reason: str
    upstream: str


@dataclass(frozen=True)
class Result:
    """The verdict on one case.

    Attributes:
        case, clauses, input_class: the case, what it checks, and whether its input is valid.
        target: the environment.
        status: one of `agree`, `diverge`, `known`, `skip`, `error`.
        divergences: what differs.
        deviation: the ids of the known deviations, joined; None if it is not `known`.
        reason: of the first of them; or why there is no verdict.
        digest: of what the load left.
        seconds: that it took.
        rerun: the line that reruns just this case.
        impact: the gravest of its divergences; None if there are none.
        deviations: the known deviations that account for its divergences.
    """

    case: str
    clauses: tuple[str, ...]
    input_class: str
    target: str
    status: str
    divergences: tuple[Divergence, ...] = ()
    deviation: str | None = None
    reason: str = ""
    digest: str = ""
    seconds: float = 0.0
    rerun: str = ""
    impact: str | None = None
    deviations: tuple[KnownDeviation, ...] = ()

    def record(self) -> dict[str, Any]:
        """The result's line in `report.jsonl`."""
        return {"record": "result", **asdict(self)}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Result:
        """A result from its line in `report.jsonl`, by this version or another."""
        return cls(**fields_of(cls, record))


def fields_of(form: type, record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a line of `report.jsonl` as the dataclass `form` has them.

    A field that `form` does not have was added by a later version, and is left out. A line of an
    earlier one has neither impact nor a list of deviations: both follow from what it has.
    """
    record = {
        "deviations": _named_deviations(record.get("deviation"), record.get("reason", "")),
        "impact": gravest(of_kind(each["kind"]) for each in record["divergences"]),
        **record,
    }
    kept = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in _known_fields(form, record).items()
    }
    kept["divergences"] = tuple(
        Divergence(**_known_fields(Divergence, {"impact": of_kind(each["kind"]), **each}))
        for each in record["divergences"]
    )
    kept["deviations"] = tuple(
        KnownDeviation(**_known_fields(KnownDeviation, each)) for each in record["deviations"]
    )
    return kept


def _known_fields(form: type, record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a record that the dataclass has."""
    names = {field.name for field in fields(form)}
    return {name: value for name, value in record.items() if name in names}


def _named_deviations(deviation: str | None, reason: str) -> list[dict[str, str]]:
    """The deviations in an earlier version's record: its ids, and the reason of the first.

    Their impact is not known, so it is that of what they account for.
    """
    names = deviation.split(", ") if deviation else []
    return [
        {"id": name, "clause": "", "impact": "", "reason": reason if number == 0 else ""}
        | {"upstream": ""}
        for number, name in enumerate(names)
    ]


class Recorder:
    """Writes `report.jsonl`: header, a line a record, footer; without footer it is truncated."""

    def __init__(self, file: TextIO, counted: str = "result") -> None:
        """Args: the file, and what the footer's summary counts: "result" or "change"."""
        self._file = file
        self._counted = {"result": "status", "change": "change"}[counted]
        self._count: Counter[str] = Counter()

    def header(self, **fields: Any) -> None:
        """Record what was judged, where and by what."""
        self._write_line({"record": "header", "schema": SCHEMA, **fields})

    def result(self, result: Result) -> None:
        """Record one verdict, written out at once."""
        self.record(result.record())

    def record(self, record: Mapping[str, Any]) -> None:
        """Record a line of any kind in `report.jsonl`."""
        if self._counted in record:
            self._count[record[self._counted]] += 1
        self._write_line(record)

    def footer(self, exit_code: int, finished: str) -> None:
        """Record the end of a whole report."""
        summary = dict(sorted(self._count.items()))
        self._write_line(
            {"record": "footer", "summary": summary, "exit_code": exit_code, "finished": finished}
        )

    def _write_line(self, record: Mapping[str, Any]) -> None:
        """Write a line of `report.jsonl` at once."""
        text = json.dumps(finite(record), ensure_ascii=True, allow_nan=False, default=str)
        self._file.write(text + "\n")
        self._file.flush()


def finite(value: Any) -> Any:
    """A record in which numbers that JSON has no word for are text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return value


class BadReport(ValueError):
    """A file is not a report, or a truncated one."""


def read_report(path: Path) -> list[dict[str, Any]]:
    """The records of a whole report.

    Raises:
        BadReport: not JSON lines, another schema, or no footer.
    """
    try:
        records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except ValueError as cause:
        raise BadReport(f"{path} is not a report: {cause}") from cause
    if not all(isinstance(record, dict) for record in records):
        raise BadReport(f"{path} has a line that is not a record")
    if not records or records[0].get("record") != "header":
        raise BadReport(f"{path} has no header")
    if records[0].get("schema") != SCHEMA:
        raise BadReport(f"{path} has schema {records[0].get('schema')!r}, this reads {SCHEMA}")
    if records[-1].get("record") != "footer":
        raise BadReport(f"{path} has no footer: the run was cut off")
    return records


def exit_code(results: Iterable[Result], stale: Iterable[str]) -> int:
    """Of results: 2 if one has no verdict, 1 for a divergence, 3 for a stale deviation, else 0."""
    statuses = {result.status for result in results}
    if ERROR in statuses:
        return 2
    if DIVERGE in statuses:
        return 1
    return 3 if list(stale) else 0
