"""`conformance explain`: the plan of a load, or with --check the faults of a checkpoint."""

from __future__ import annotations

import argparse
import json
from typing import Any

from conformance.commands.arguments.shared import UsageError
from conformance.commands.selection import model_class
from conformance.inspect import doctor_table, footprint_table
from conformance.inspect.doctor import examine
from conformance.inspect.footprint import BadBudget, explain, named, parse_budgets, planned
from conformance.results.text import plain_lines
from reference_loader.errors import LoadError
from reference_loader.options import Options
from reference_loader.plan.decide import refuse_mismatches
from reference_loader.source.checkpoint import open_folder


def run(options: argparse.Namespace) -> int:
    """Show the plan, or the findings; the exit code."""
    try:
        budgets = parse_budgets(options.max_memory) if options.max_memory else {}
    except BadBudget as error:
        raise UsageError(f"--max-memory: {error}") from error
    load = _load_options(options, budgets)
    if options.check:
        return _check(options, load["model_class"])
    decided, taken = planned(options.checkpoint, **load)
    explained = explain(decided, named(budgets), taken=taken)
    if options.format == "json":
        print(json.dumps({**decided.to_dict(), **explained.to_dict()}, indent=2))
    else:
        print(plain_lines(str(decided)))
        footprint_table.show(explained)
        if not options.ignore_mismatched_sizes:
            try:
                refuse_mismatches(decided.mismatched)
            except LoadError as error:
                print(f"\nA load is refused, {error.code}: {error}")
    return 0


def _load_options(options: argparse.Namespace, budgets: dict[Any, int]) -> dict[str, Any]:
    """The options of `from_pretrained`; with budgets and no map, all goes to the first of them."""
    device_map = options.device_map or next(iter(budgets), None)
    if isinstance(device_map, str) and device_map.startswith("{"):
        try:
            device_map = json.loads(device_map)
        except ValueError as error:
            raise UsageError(f"--device-map: {error}") from error
    return {
        "model_class": model_class(options.model_class),
        "dtype": options.dtype,
        "revision": options.revision,
        "subfolder": options.subfolder,
        "variant": options.variant,
        "ignore_mismatched_sizes": options.ignore_mismatched_sizes,
        "device_map": device_map,
        "max_memory": budgets or None,
        "trust_remote_code": options.trust_remote_code,
    }


def _check(options: argparse.Namespace, asked: type | None) -> int:
    chosen = Options(
        model_class=asked,
        variant=options.variant,
        revision=options.revision,
        trust_remote_code=options.trust_remote_code,
    )
    folder = open_folder(options.checkpoint, options.subfolder, chosen)
    examined = examine(folder, chosen, doctor_table.bar)
    if options.format == "json":
        print(doctor_table.as_json(examined))
    else:
        doctor_table.show(examined)
    return examined.exit_code
