"""`conformance`: the command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from conformance.cases.case import Case
    from conformance.inspect.load_record import Load

EXIT_ERROR = 2
EXIT_USAGE = 64

TARGETS = (
    "a target is `current`, a release such as 4.57.6, requirements joined by commas such as "
    "transformers==5.0.0,accelerate==1.10.1, or python:PATH; a folder is a checkpoint"
)


class _Parser(argparse.ArgumentParser):
    """Argparse with the contract's exit code for usage."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code. No exception of a loader's comes through."""
    from conformance.results.text import plain
    from reference_loader.errors import LoadError

    options = _parser().parse_args(arguments)
    # Before torch is imported: idle threads that spin slow down every other process on the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        code: int = options.run(options)
    except LoadError as error:
        print(f"conformance: {error.code}: {plain(error)}", file=sys.stderr)
        return EXIT_ERROR
    except _UsageError as error:
        print(f"conformance: {plain(error)}", file=sys.stderr)
        return EXIT_USAGE
    except (OSError, _HarnessError) as error:  # such as an --out that cannot be written
        print(f"conformance: {plain(error)}", file=sys.stderr)
        return EXIT_ERROR
    return code


class _HarnessError(RuntimeError):
    """What is needed to reach a verdict cannot be had."""


class _UsageError(ValueError):
    """The arguments name something that is not there."""


def _parser() -> _Parser:
    parser = _Parser(
        "conformance", description="Hold loaders against a specification of from_pretrained."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    _add_check(commands.add_parser("check", help="judge a loader against the reference"))
    _add_compare(commands.add_parser("compare", help="what changes from one release to the next"))
    _add_bisect(commands.add_parser("bisect", help="the release that a case changed in"))
    repro = commands.add_parser("repro", help="a case as a folder for an upstream issue")
    repro.add_argument("case", metavar="CASE")
    repro.add_argument("--out", type=Path, metavar="DIR", required=True)
    repro.set_defaults(run=_repro)
    render = commands.add_parser("render", help="report.html and the others from a report.jsonl")
    render.add_argument("folder", type=Path, metavar="DIR", help="of an earlier run")
    render.add_argument("--format", choices=("files", "markdown"), default="files")
    render.set_defaults(run=_render)
    _add_record(commands.add_parser("record", help="what a load leaves, in a small file"))
    verify = commands.add_parser("verify", help="hold a load against what was recorded")
    verify.add_argument("file", type=Path, metavar="FILE")
    verify.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help="if it moved")
    verify.set_defaults(run=_verify)
    _add_explain(commands.add_parser("explain", help="the plan of a load; no weight is read"))
    _add_bench(commands.add_parser("bench", help="speed and memory of loading, against stock"))
    spec = commands.add_parser("spec", help="show the clauses")
    spec.add_argument("clause", nargs="?", metavar="ID")
    spec.add_argument("--format", choices=("text", "markdown"), default="text")
    spec.add_argument("--out", type=Path, metavar="FILE")
    spec.set_defaults(run=_spec)
    selftest = commands.add_parser("selftest", help="mutant loaders, each caught by its clause")
    selftest.set_defaults(run=_selftest)
    fixture = commands.add_parser("fixture", help="write a checkpoint to play with")
    fixture.add_argument("recipe", metavar="RECIPE")
    fixture.add_argument("folder", type=Path, metavar="DIR")
    fixture.add_argument("--fault", action="append", default=[], metavar="NAME")
    fixture.set_defaults(run=_fixture)
    return parser


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoints", nargs="*", metavar="CHECKPOINT", help="a folder, or an id on the Hub"
    )
    parser.add_argument("--loader", default="stock", metavar="stock|reference|MODULE:ATTR")
    parser.add_argument("--case", action="append", default=[], metavar="GLOB")
    parser.add_argument("--clause", action="append", default=[], metavar="ID")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--format", choices=("table", "markdown"), default="table")
    parser.add_argument("--out", type=Path, metavar="DIR")
    parser.set_defaults(run=_check)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="+", metavar="TARGET|CHECKPOINT", help=TARGETS)
    parser.add_argument("--case", action="append", default=[], metavar="GLOB")
    parser.add_argument("--clause", action="append", default=[], metavar="ID")
    parser.add_argument("--accept", type=Path, metavar="FILE", help="changes to live with")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="the limit of one load")
    parser.add_argument("--format", choices=("table", "markdown"), default="table")
    parser.add_argument("--out", type=Path, metavar="DIR")
    parser.set_defaults(run=_compare)


def _add_bisect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("case", metavar="CASE")
    parser.add_argument("--good", required=True, metavar="TARGET", help=TARGETS)
    parser.add_argument("--bad", required=True, metavar="TARGET")
    parser.add_argument("--clause", metavar="ID", default="", help="the only clause that counts")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="the limit of one load")
    parser.set_defaults(run=_bisect)


def _add_record(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder, or an id on the Hub")
    parser.add_argument("--out", type=Path, metavar="FILE", required=True)
    parser.add_argument("--model", metavar="MODULE:ATTR", default="", help="the model class")
    parser.add_argument("--dtype", default="", help="`auto` or a name; else the release's default")
    parser.set_defaults(run=_record)


def _add_explain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder, or an id on the Hub")
    parser.add_argument("--revision", default="main", help="a branch, tag or commit on the Hub")
    parser.add_argument("--model", metavar="MODULE:ATTR", help="the model class")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--subfolder", default="")
    parser.add_argument("--variant")
    parser.add_argument("--ignore-mismatched-sizes", action="store_true")
    parser.add_argument("--device-map", metavar="WORD|DEVICE|JSON", help="auto, cuda:0, {...}")
    parser.add_argument("--max-memory", metavar="0=24GiB,cpu=64GiB", default="")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument(
        "--check", action="store_true", help="all that is wrong with the folder; weights are read"
    )
    parser.set_defaults(run=_explain)


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--case", action="append", default=[], metavar="GLOB")
    parser.add_argument("--contender", action="append", default=[], metavar="GLOB")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="processes each")
    parser.add_argument("--out", type=Path, metavar="DIR")
    parser.set_defaults(run=_bench)


def _check(options: argparse.Namespace) -> int:
    from conformance.commands.check import check
    from conformance.observe.loaders import UnknownLoader
    from conformance.world.gpus import absent

    if reason := absent(options.device):
        raise _HarnessError(f"--device {options.device}: {reason}")
    cases = _selected(options.checkpoints, options)
    markdown = options.format == "markdown"
    try:
        return check(cases, options.loader, options.out, markdown, options.device)
    except UnknownLoader as error:
        raise _UsageError(str(error)) from error


def _selected(checkpoints: Sequence[str | Path], options: argparse.Namespace) -> list[Case]:
    """The cases of the checkpoints, or of the fixtures, that --case and --clause leave."""
    from conformance.cases.catalogue import catalogue, on, own_cases, select
    from conformance_fixtures.tokens import BadToken
    from reference_loader.options import Options
    from reference_loader.source.checkpoint import open_folder

    _known_clauses(options.clause)
    folders = [open_folder(each, subfolder="", options=Options()) for each in checkpoints]
    device = getattr(options, "device", "cpu")
    offered = [on(device, case) for case in own_cases(*folders)] or list(catalogue(device))
    try:
        cases = select(offered, options.case, options.clause)
    except BadToken as error:
        raise _UsageError(f"--case: {error}") from error
    if not cases:
        raise _UsageError(f"no case matches {options.case + options.clause}")
    return cases


def _compare(options: argparse.Namespace) -> int:
    from conformance.commands.compare import Comparison, compare
    from conformance.judge.accepted import BadAcceptFile
    from conformance.releases.prober import LOAD_SECONDS

    checkpoints = [Path(word) for word in options.words if Path(word).is_dir()]
    targets = [word for word in options.words if not Path(word).is_dir()]
    if len(targets) < 2:
        raise _UsageError(f"compare needs two targets or more, and got {targets}; {TARGETS}")
    cases = _selected(checkpoints, options)
    seconds = options.timeout or LOAD_SECONDS
    markdown = options.format == "markdown"
    asked = Comparison(targets, cases, checkpoints, options.out, options.accept, seconds, markdown)
    try:
        with _about_targets():
            return compare(asked)
    except BadAcceptFile as error:
        raise _UsageError(str(error)) from error


@contextmanager
def _about_targets() -> Iterator[None]:
    """What is wrong with a target, as an error of the command line."""
    from conformance.releases.prober import TargetUnusable
    from conformance.releases.targets import BadTarget, TargetNotMade

    try:
        yield
    except BadTarget as error:
        raise _UsageError(str(error)) from error
    except (TargetNotMade, TargetUnusable) as error:
        raise _HarnessError(str(error)) from error


def _bisect(options: argparse.Namespace) -> int:
    from conformance.commands.bisect import NothingToFind, Search, bisect
    from conformance.releases.prober import LOAD_SECONDS

    _known_clauses([options.clause] if options.clause else [])
    seconds = options.timeout or LOAD_SECONDS
    asked = Search(_one(options.case), options.good, options.bad, options.clause, seconds)
    try:
        with _about_targets():
            return bisect(asked)
    except NothingToFind as error:
        raise _HarnessError(str(error)) from error


def _one(pattern: str) -> Case:
    """The only case that the glob matches."""
    cases = _selected([], argparse.Namespace(case=[pattern], clause=[]))
    if len(cases) > 1:
        raise _UsageError(f"{pattern} matches {len(cases)} cases, and one is wanted")
    return cases[0]


def _repro(options: argparse.Namespace) -> int:
    from conformance.judge.session import open_session
    from conformance.repro.folder import NotReproducible, repro

    case = _one(options.case)
    if options.out.exists():
        raise _UsageError(f"{options.out} exists already")
    try:
        result = repro(case, options.out, open_session("stock"))
    except NotReproducible as error:
        raise _HarnessError(str(error)) from error
    print(f"{case.id}: {result.status}; run `python {options.out / 'repro.py'}`")
    return 0


def _render(options: argparse.Namespace) -> int:
    from conformance.report.markdown import comment
    from conformance.report.renderings import render
    from conformance.report.stored_run import read_whole
    from conformance.results.records import BadReport

    try:
        if options.format == "markdown":
            print(comment(read_whole(options.folder / "report.jsonl")), end="")
        else:
            render(options.folder)
            print(options.folder / "report.html")
    except BadReport as error:
        raise _HarnessError(str(error)) from error
    return 0


def _record(options: argparse.Namespace) -> int:
    from conformance.inspect.load_record import NotLoaded, record

    load = _load(options.checkpoint, options.model, options.dtype)
    try:
        size = record(load, options.out)
    except NotLoaded as error:
        raise _HarnessError(str(error)) from error
    print(f"{options.out}: {size / 1000:.1f} kB; `conformance verify {options.out}`")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from conformance.inspect.load_record import BadRecord, options_of, read, verify

    try:
        recorded = read(options.file)
        held = options_of(recorded)
        load = _load(options.checkpoint or held["checkpoint"], held["model"], held["dtype"])
        return verify(options.file, load, recorded)
    except BadRecord as error:
        raise _HarnessError(str(error)) from error


def _load(checkpoint: str, model: str, dtype: str) -> Load:
    """What `record` and `verify` load; an error of the arguments is told before anything is."""
    import torch

    from conformance.cases.case import Case
    from conformance.inspect.load_record import Load
    from reference_loader.options import Options
    from reference_loader.source.checkpoint import open_folder

    try:
        Case("", (), model=model).model_class()
    except (ImportError, AttributeError, ValueError) as error:
        raise _UsageError(f"--model {model}: {error}") from error
    if dtype not in ("", "auto") and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise _UsageError(f"--dtype {dtype}: neither `auto` nor a dtype of torch")
    folder = open_folder(checkpoint, subfolder="", options=Options())
    return Load(checkpoint, folder, model, dtype)


def _explain(options: argparse.Namespace) -> int:
    from conformance.inspect.footprint import BadBudget, explain, named, parse_budgets, planned
    from conformance.inspect.footprint_table import show
    from conformance.results.text import plain_lines

    try:
        budgets = parse_budgets(options.max_memory) if options.max_memory else {}
    except BadBudget as error:
        raise _UsageError(f"--max-memory: {error}") from error
    asked = _load_options(options, budgets)
    if options.check:
        return _examine(options, asked["model_class"])
    decided, taken = planned(options.checkpoint, **asked)
    explained = explain(decided, named(budgets), taken=taken)
    if options.format == "json":
        print(json.dumps({**decided.to_dict(), **explained.to_dict()}, indent=2))
    else:
        print(plain_lines(str(decided)))
        show(explained)
    return 0


def _load_options(options: argparse.Namespace, budgets: dict[Any, int]) -> dict[str, Any]:
    """The options of `from_pretrained`; with budgets and no map, all goes to the first of them."""
    from conformance.cases.case import Case

    try:
        model_class = Case("", (), model=options.model or "").model_class()
    except (ImportError, AttributeError, ValueError) as error:
        raise _UsageError(f"--model {options.model}: {error}") from error
    device_map = options.device_map or next(iter(budgets), None)
    if isinstance(device_map, str) and device_map.startswith("{"):
        try:
            device_map = json.loads(device_map)
        except ValueError as error:
            raise _UsageError(f"--device-map: {error}") from error
    return {
        "model_class": model_class,
        "dtype": options.dtype,
        "revision": options.revision,
        "subfolder": options.subfolder,
        "variant": options.variant,
        "ignore_mismatched_sizes": options.ignore_mismatched_sizes,
        "device_map": device_map,
        "max_memory": budgets or None,
    }


def _bench(options: argparse.Namespace) -> int:
    from conformance.bench.run import NothingToMeasure, bench

    if options.rounds < 1:
        raise _UsageError("--rounds: at least 1")
    try:
        return bench(options.case, options.contender, options.rounds, options.out)
    except NothingToMeasure as error:
        raise _UsageError(str(error)) from error


def _examine(options: argparse.Namespace, model_class: type | None) -> int:
    from conformance.inspect.doctor import examine
    from conformance.inspect.doctor_table import as_json, bar, show
    from reference_loader.options import Options
    from reference_loader.source.checkpoint import open_folder

    chosen = Options(model_class=model_class, variant=options.variant, revision=options.revision)
    examined = examine(open_folder(options.checkpoint, options.subfolder, chosen), chosen, bar)
    if options.format == "json":
        print(as_json(examined))
    else:
        show(examined)
    return examined.exit_code


def _spec(options: argparse.Namespace) -> int:
    from conformance.commands.specification import UnknownWord, as_markdown, describe
    from conformance.spec import clauses

    if options.clause:
        try:
            text = describe(options.clause) + "\n"
        except UnknownWord as error:
            raise _UsageError(str(error)) from error
    elif options.format == "markdown":
        text = as_markdown()
    else:
        text = "".join(f"{c.id:<7} {c.level:<8} {c.title}\n" for c in clauses().values())
    if options.out:
        options.out.write_text(text, "utf-8")
    else:
        sys.stdout.write(text)
    return 0


def _selftest(options: argparse.Namespace) -> int:
    from conformance.commands.selftest import selftest

    return selftest()


def _fixture(options: argparse.Namespace) -> int:
    import shutil

    from conformance_fixtures.llama2_7b import NAME, hollow
    from conformance_fixtures.write import materialise

    if options.folder.exists():
        raise _UsageError(f"{options.folder} exists already")
    if options.recipe == NAME and not options.fault:
        print(hollow(options.folder))
        return 0
    try:
        written = materialise(options.recipe, options.fault)
    except ValueError as error:
        raise _UsageError(str(error)) from error
    shutil.copytree(written, options.folder)
    print(options.folder)
    return 0


def _known_clauses(identifiers: Sequence[Any]) -> None:
    from conformance.spec import clauses

    for identifier in identifiers:
        if identifier not in clauses():
            raise _UsageError(f"there is no clause {identifier!r}; `conformance spec` lists them")
