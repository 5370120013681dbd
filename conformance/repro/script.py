"""The text of the script that `conformance repro` writes: one case, without our packages."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from conformance.cases.case import (
    ACCEPTABLE,
    SEED,
    SPOILED,
    Case,
    ConfigFolder,
    ConfigObject,
    EmptyFolder,
    SpoiledStateDict,
    StoredStateDict,
    Torch,
)
from conformance.observe.loaders import named_class
from conformance.observe.observe import PASSED
from conformance.repro.bundle import OURS, Bundle
from conformance.repro.script_functions import TENSOR_FACTS, Places

WIDTH = 99

SCRIPTED = "conformance.repro.script_functions"

# The functions that find places in the result of a load, and the prefixes of those places.
FINDERS = {
    "tensors_found(result)": tuple(TENSOR_FACTS.values()),
    "modules_found(result)": ("class of module", "training of"),
    "info_found(result)": ("returned:", "container of", "keys in"),
    "config_found(result, {passed})": ("config field",),
    "generation_config_found(result)": ("generation config field",),
    "device_map_found(result)": ("device of module",),
    "outputs_found(result, greedy={greedy})": ("output",),
}

CHECKPOINT = 'str(HERE / "checkpoint")'

# The expression for an option of this type, and the import that it needs.
STANDING_FOR: dict[type, tuple[str, str]] = {
    ConfigFolder: ('str(HERE / "config")', "pathlib Path"),
    EmptyFolder: ("mkdtemp()", "tempfile mkdtemp"),
    StoredStateDict: (
        'load_file(HERE / "checkpoint" / "model.safetensors")',
        "safetensors.torch load_file",
    ),
}

OFFLINE = """\
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a path that is no folder causes no request to a Hub
"""

ATTEMPT = '''\
def attempt(options):
    """What the load returns, and what it raises."""
    torch.manual_seed({seed})
    try:
        with poisoned_memory():
            return load(options), None
    except (Exception, SystemExit) as error:
        return None, error'''

IN_THREADS = '''\
def facts(result):
    """What must be the same for every load."""
    return observe_tensors(model_of(result))


def attempt(options):
    """What the load returns, what it raises, and what each of several loads at once did."""
    torch.manual_seed({seed})
    try:
        with poisoned_memory():
            result, threads = load_in_threads({threads}, lambda: load(options), facts)
    except (Exception, SystemExit) as error:
        return None, error, []
    raised = isinstance(result, Exception)
    return None if raised else result, result if raised else None, threads'''

END = """\
if __name__ == "__main__":
    raise SystemExit(main())"""


@dataclass(frozen=True)
class Expected:
    """What the script compares a load with.

    Attributes:
        places: what a correct load leaves.
        raised: the type of the error that a load of invalid input raises; "" if it must load.
        state: the facts of the process that must be the same after the load as before.
    """

    places: Places = field(default_factory=dict)
    raised: str = ""
    state: tuple[str, ...] = ()

    @property
    def in_process(self) -> bool:
        """Whether the script compares the state of the process."""
        return bool(self.state) or "state of" in self.places


def script(case: Case, expected: Expected, about: Sequence[str]) -> str:
    """The whole text of the script.

    Args:
        case: a case that needs no Hub.
        expected: what a correct load leaves.
        about: lines for the comment at the top.
    """
    bundle = Bundle()
    bundle.imported("pathlib", "Path")
    load, model = _load_functions(case, bundle), bundle.take()
    bundle.add("conformance.world.process", "poisoned_memory")
    bundle.add(SCRIPTED, "as_expected", "refusal")
    functions = [_attempt_function(case, bundle), _main_function(case, expected, bundle)]
    comment = "\n".join(textwrap.fill(line, WIDTH, **_COMMENT) for line in about)
    imports = "\n".join(line for line in bundle.imports if line != "import os")
    parts = [
        f"{comment}\n\nfrom __future__ import annotations\n\n{OFFLINE}\n{imports}",
        *model,
        "HERE = Path(__file__).resolve().parent",
        load,
        f"EXPECTED = {_python_value(expected.places)}",
        *([f"STATE = {expected.state!r}  # as it was before the load"] if expected.state else []),
        *bundle.take(),
        *functions,
        END,
    ]
    return "\n\n\n".join(parts) + "\n"


_COMMENT: dict[str, Any] = {
    "initial_indent": "# ",
    "subsequent_indent": "#   ",
    "break_long_words": False,
    "break_on_hyphens": False,
}


def _python_value(value: Any, within: str = "") -> str:
    """A value as Python in the script, in lines."""
    if isinstance(value, dict) and value:
        deeper = within + "    "
        held = (
            f"{deeper}{key!r}: {_python_value(inner, deeper)},\n" for key, inner in value.items()
        )
        return f"{{\n{''.join(held)}{within}}}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_python_value(inner, within) for inner in value)}]"
    return repr(value)


def _load_functions(case: Case, bundle: Bundle) -> str:
    """The script's functions `options` and `load`."""
    name = _model_name(case, bundle)
    given = case.keywords()
    options = [
        f"        {key!r}: {_option_literal(value, bundle, name)}," for key, value in given.items()
    ]
    lines = [
        "def options_of_load():",
        '    """The keyword arguments, made anew for each load."""',
        "    return {",
        *options,
        "    }",
        "",
        "",
        "def load(options):",
        '    """The load itself."""',
        f"    return {name}.from_pretrained({_source_argument(case)}, **options)",
    ]
    return "\n".join(lines)


def _attempt_function(case: Case, bundle: Bundle) -> str:
    """The script's function `attempt`, and `facts` where several loads at once are compared."""
    if case.threads == 1:
        return ATTEMPT.format(seed=SEED)
    bundle.add("conformance.world.threads", "load_in_threads")
    bundle.add("conformance.observe.facts", "observe_tensors", "model_of")
    bundle.add(SCRIPTED, "threads_found")
    return IN_THREADS.format(seed=SEED, threads=case.threads)


def _model_name(case: Case, bundle: Bundle) -> str:
    """The name of the model's class in the script, which the bundle defines or imports."""
    module, _, name = case.model.partition(":")
    if not case.model:
        trusted = case.options.get("trust_remote_code") is True
        module, name = "transformers", "AutoModelForCausalLM"
        with suppress(
            ValueError
        ):  # the class is code that the load refuses, as the Auto class does
            name = named_class(str(case.source()), trusted)[0].__name__
    if module.partition(".")[0] in OURS:
        bundle.add(module, name)
    else:
        bundle.imported(module, name)
    return name


def _folder_expression(case: Case) -> str:
    """The script's checkpoint; a case on a folder that does not exist is about that."""
    source = case.source()
    return CHECKPOINT if source.is_dir() else repr(str(source))


def _source_argument(case: Case) -> str:
    """What the script passes to `from_pretrained` as the checkpoint."""
    if case.given is None:
        return "None"
    return (
        f"{_folder_expression(case)} + {'/' + case.given!r}"
        if case.given
        else _folder_expression(case)
    )


def _option_literal(value: Any, bundle: Bundle, model: str) -> str:
    """An option of the load as an expression of the script."""
    if isinstance(value, dict):
        held = (f"{key!r}: {_option_literal(inner, bundle, model)}" for key, inner in value.items())
        return f"{{{', '.join(held)}}}"
    if isinstance(value, Torch):
        member, _, argument = value.name.partition(":")
        return f"torch.{member}({argument!r})" if argument else f"torch.{member}"
    if isinstance(value, ConfigObject):
        bundle.add(SCRIPTED, "config_with")
        return f"config_with({model}, {CHECKPOINT}, {dict(value.changes)!r})"
    if isinstance(value, SpoiledStateDict):
        tensors, needed = STANDING_FOR[StoredStateDict]
        bundle.imported(*needed.split())
        entry = f"(lambda tensor: {SPOILED[value.entry]})({tensors}[{value.key!r}])"
        return f"{{**{tensors}, {value.key!r}: {entry}}}"
    if type(value) in STANDING_FOR:
        expression, needed = STANDING_FOR[type(value)]
        bundle.imported(*needed.split())
        return expression
    return repr(value)


def _main_function(case: Case, expected: Expected, bundle: Bundle) -> str:
    """The script's main function: loads, compares, prints, returns the exit code."""
    lines = [
        '"""Load, compare, print; 1 if anything differs."""',
        *_before_load(case, expected, bundle),
    ]
    lines += _attempted(case, expected, bundle)
    if expected.raised:
        lines += [f"expected, actual = refusal({expected.raised!r}, {case.names!r}, error)"]
    else:
        lines += ["if error is None:", "    expected, actual = EXPECTED, {"]
        lines += [f"        {finder}," for finder in _finders(case, expected, bundle)]
        lines += ["    }", "else:", *(_REFUSED if case.input_class == ACCEPTABLE else _FAILED)]
    lines += _after_load(case, expected)
    lines += ["return 0 if as_expected(expected, actual) else 1"]
    return "def main():\n" + textwrap.indent("\n".join(lines), "    ")


_REFUSED = [
    '    print(f"refused, which is as good: {type(error).__name__}: {error}")',
    "    expected, actual = {}, {}",
]
_FAILED = ['    expected, actual = refusal("nothing", (), error)']


def _before_load(case: Case, expected: Expected, bundle: Bundle) -> Iterator[str]:
    """The script's lines before the load."""
    if expected.in_process:
        bundle.add("conformance.world.process", "process_state", "put_back")
        bundle.add("conformance.world.snapshot", "Snapshot")
        yield "with put_back(Snapshot()):  # some things happen only once in a process"
        yield "    attempt(options_of_load())"
    yield "options = options_of_load()"
    if _passes_config(case):
        bundle.add("conformance.observe.facts", "text_of", "unchanged")
        yield 'given = text_of(options["config"])'


def _passes_config(case: Case) -> bool:
    """Whether the script's case passes a config object."""
    return isinstance(case.options.get("config"), ConfigObject)


def _attempted(case: Case, expected: Expected, bundle: Bundle) -> Iterator[str]:
    """The script's load, within the surroundings that its caller has set."""
    within, threads = "", ", threads" if case.threads > 1 else ""
    if case.under:
        bundle.add("conformance.world.process", "surrounded")
        yield f"with surrounded({case.under!r}):"
        within = "    "
    if "input_reads" in expected.state:
        bundle.add("conformance.world.standard_input", "ended_input")
        yield f"{within}with ended_input():"
        within += "    "
    if expected.in_process:
        yield f"{within}snapshot = Snapshot()"
        yield f"{within}before = process_state(snapshot)"
    yield f"{within}result, error{threads} = attempt(options)"
    if expected.in_process:
        yield f"{within}after = process_state(snapshot)"


def _finders(case: Case, expected: Expected, bundle: Bundle) -> Iterator[str]:
    """The script's expressions that find all expected places."""
    passed = f'{{"{PASSED}": unchanged(options["config"], given)}}'
    passed = passed if _passes_config(case) else "{}"
    for finder, prefixes in FINDERS.items():
        if expected.places.keys() & set(prefixes):
            bundle.add(SCRIPTED, finder.partition("(")[0])
            yield "**" + finder.format(greedy=case.greedy, passed=passed)
    if "state of" in expected.places:
        left = ', "offload_folder": files_in(options["offload_folder"])'
        if "offload_folder" in expected.places["state of"]:
            bundle.add(SCRIPTED, "files_in")
        else:
            left = ""
        yield f'"state of": {{"rng": after["rng"]{left}}}'


def _after_load(case: Case, expected: Expected) -> Iterator[str]:
    """The script's checks after the load: what must be as before, in every thread as alone."""
    if expected.state:
        for places, state in (("expected", "before"), ("actual", "after")):
            kept = f'{places}.get("state of", {{}}) | {{name: {state}.get(name) for name in STATE}}'
            yield f'{places} = {places} | {{"state of": {kept}}}'
    if case.threads > 1:
        yield 'expected = expected | {"loads at once": {"in every thread": "as alone"}}'
        found = '{"loads at once": {"in every thread": threads_found(threads)}}'
        yield f"actual = actual | {found}"
