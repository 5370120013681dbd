"""Cases of options in combination: every pair of option values and checkpoints is in some load.

The other tables vary one option at a time. A loader can be right in each of those and wrong where
two options meet, or in the plain call, which asks for no loading info. The id of a case has a
number and every value that is not the default: `combo/017-auto-bfloat16-mapped`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from conformance.cases.case import (
    AUTO,
    BASE,
    CAUSAL,
    IN_MEMORY,
    Case,
    EmptyFolder,
    Torch,
)
from conformance.cases.off import ONE_LAYER
from conformance.cases.pairwise import Never, covering_array

# The first value of each factor is the default: the call leaves the option out.
FACTORS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "info": ("plain", "info"),
        "class": ("head", "base", "auto", "unnamed"),
        "recipe": (
            "single",
            "sharded",
            "bin",
            "tied",
            "tiedhead",
            "tiedequal",
            "basestored",
            "missing",
            "unexpected",
            "mismatch",
            "bf16",
            "mixed",
            "generation",
        ),
        "dtype": (
            "default",
            "none",
            "autodtype",
            "float32",
            "bfloat16",
            "float16",
            "bfloat16name",
            "olddtype",
        ),
        "map": ("nomap", "cpu", "device", "whole", "split", "disk"),
        "attention": ("anyattention", "eager", "sdpa"),
        "format": ("anyformat", "safetensors", "pickle"),
        "variant": ("novariant", "fp16"),
        "subfolder": ("root", "inner"),
        "mapping": ("unmapped", "mapped"),
        "sizes": ("exact", "ignoring"),
        "source": ("folder", "memory"),
        "buffers": ("nobuffers", "buffers"),
        "field": ("nofield", "epsilon"),
    }
)

# The checkpoint of each value of "recipe": a recipe and its faults.
CHECKPOINTS: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "single": ("llama-f32", ()),
        "sharded": ("llama-f32-3", ()),
        "bin": ("llama-f32", ("pickled",)),
        "tied": ("llama-tied-embedding", ()),
        "tiedhead": ("llama-tied-head", ()),
        "tiedequal": ("llama-tied-equal", ()),
        "basestored": ("llama-base", ()),
        "missing": ("llama-f32", ("missing-key",)),
        "unexpected": ("llama-f32", ("unexpected-key",)),
        "mismatch": ("llama-f32", ("wrong-shape",)),
        "bf16": ("llama-bf16", ()),
        "mixed": ("llama-mixed-2", ()),
        "generation": ("llama-generation", ()),
    }
)

_WITHOUT_PICKLE = tuple(name for name in FACTORS["recipe"] if name != "bin")

IMPOSSIBLE = (
    Never("recipe", ("mismatch",), "sizes", ("exact",), "the load is rejected (MIS-4)"),
    Never("recipe", ("bin",), "format", ("safetensors",), "there are no safetensors"),
    Never("recipe", _WITHOUT_PICKLE, "format", ("pickle",), "there is no pickled file"),
    Never(
        "recipe", ("bin", "sharded", "mixed"), "source", ("memory",), "no single safetensors file"
    ),
    Never("format", ("safetensors", "pickle"), "source", ("memory",), "no file is read"),
    Never("variant", ("fp16",), "source", ("memory",), "no file is read"),
    Never("subfolder", ("inner",), "source", ("memory",), "no folder is read"),
    Never("class", ("auto", "unnamed"), "source", ("memory",), "the class needs a source"),
    Never("field", ("epsilon",), "source", ("memory",), "the config is an object (CFG-17)"),
    Never(
        "buffers",
        ("buffers",),
        "map",
        tuple(name for name in FACTORS["map"] if name != "disk"),
        "only disk offload has buffers to place",
    ),
)

_CLASSES = {"head": CAUSAL, "base": BASE, "auto": AUTO, "unnamed": ""}
_DTYPES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "default": {},
        "none": {"dtype": None},
        "autodtype": {"dtype": "auto"},
        "float32": {"dtype": Torch("float32")},
        "bfloat16": {"dtype": Torch("bfloat16")},
        "float16": {"dtype": Torch("float16")},
        "bfloat16name": {"dtype": "bfloat16"},
        "olddtype": {"torch_dtype": Torch("float16")},
    }
)

# What a value concerns: the first clause that governs a kind of divergence answers for it, so
# names and files stand before dtypes, by which every value differs.
CLAUSES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("variant", "fp16", ("RES-7",)),
    ("subfolder", "inner", ("RES-6",)),
    ("recipe", "tied", ("TIE-1",)),
    ("recipe", "tiedhead", ("TIE-2", "MIS-3")),
    ("recipe", "tiedequal", ("TIE-3",)),
    ("recipe", "mismatch", ("INF-5", "MIS-5")),
    ("recipe", "missing", ("INF-2", "MIS-2", "MIS-6")),
    ("recipe", "unexpected", ("INF-3", "MAP-4")),
    ("recipe", "generation", ("CFG-4",)),
    ("mapping", "mapped", ("MAP-6",)),
    ("source", "memory", ("RES-10",)),
    ("recipe", "bin", ("RES-8",)),
    ("recipe", "sharded", ("IDX-1",)),
    ("class", "base", ("MAP-2",)),
    ("map", "cpu", ("PLC-1", "PLC-4")),
    ("map", "device", ("PLC-1", "PLC-4")),
    ("map", "whole", ("PLC-1", "PLC-4")),
    ("map", "split", ("PLC-1", "PLC-4")),
    ("map", "disk", ("OFF-1", "PLC-4")),
    ("buffers", "buffers", ("OFF-8",)),
    ("field", "epsilon", ("CFG-3",)),
    ("attention", "eager", ("CFG-9",)),
    ("attention", "sdpa", ("CFG-9",)),
    ("dtype", "default", ("DTY-1",)),
    ("dtype", "none", ("DTY-1",)),
    ("dtype", "autodtype", ("DTY-1",)),
    ("dtype", "float32", ("DTY-3", "DTY-7")),
    ("dtype", "bfloat16", ("DTY-3", "DTY-7")),
    ("dtype", "float16", ("DTY-3", "DTY-7")),
    ("dtype", "bfloat16name", ("DTY-3", "DTY-7")),
    ("dtype", "olddtype", ("DTY-4", "DTY-7")),
)

# The fields of the config come last: every option that is lost shows in one of them.
LAST: tuple[tuple[str, str, str], ...] = (
    ("class", "auto", "CFG-5"),
    ("info", "plain", "INF-4"),
    ("info", "info", "INF-1"),
    ("source", "memory", "CFG-2"),
)

_OF_TIES = ("TIE-1", "TIE-2", "TIE-3", "MIS-3")

_EVERY_CASE = ("CFG-8", "OUT-1", "OUT-4", "STA-1", "CFG-40")


def _clauses(row: Mapping[str, str]) -> tuple[str, ...]:
    """The clauses that the values of a row concern, in the order of `CLAUSES`."""
    cited = [c for factor, value, clauses in CLAUSES if row[factor] == value for c in clauses]
    # The stored bytes of a key are its parameter's, unless that is on disk or of another shape.
    if row["map"] == "disk" or row["recipe"] == "mismatch":
        cited = [clause for clause in cited if clause != "DTY-7"]
    else:
        cited.append("MAP-1")
    if (row["recipe"], row["map"]) == ("missing", "disk"):
        cited.append("OFF-5")
    if row["class"] == "base":  # it has no head: nothing to tie, and the embedding may be missing
        cited = [clause for clause in cited if clause not in _OF_TIES]
    last = (clause for factor, value, clause in LAST if row[factor] == value)
    return tuple(dict.fromkeys((*cited, *_EVERY_CASE, *last)))


def _faults(row: Mapping[str, str]) -> tuple[str, ...]:
    """The faults of a row's checkpoint: keys, then format, then file names, then folders."""
    _, faults = CHECKPOINTS[row["recipe"]]
    pickled = row["recipe"] == "bin"
    kept = tuple(each for each in faults if each != "pickled")
    prefix = ("module-prefix",) if row["mapping"] == "mapped" else ()
    variant = ("bin-variant-fp16" if pickled else "variant-fp16",)
    return (
        *kept,
        *prefix,
        *(("pickled",) if pickled else ()),
        *(variant if row["variant"] == "fp16" else ()),
        *(("subfolder",) if row["subfolder"] == "inner" else ()),
    )


def _is_base(row: Mapping[str, str]) -> bool:
    """Whether the model of a row is the base model, whose modules have no prefix."""
    return row["class"] == "base" or (row["class"], row["recipe"]) == ("unnamed", "basestored")


def _device_map(row: Mapping[str, str]) -> dict[str, Any]:
    """The options of a row's device map."""
    modules = dict(ONE_LAYER)
    if row["map"] == "split":
        modules = dict.fromkeys(modules, "cpu")
    if _is_base(row):
        modules = {name.removeprefix("model."): where for name, where in modules.items()}
        del modules["lm_head"]
    maps: dict[str, dict[str, Any]] = {
        "nomap": {},
        "cpu": {"device_map": "cpu"},
        "device": {"device_map": Torch("device:cpu")},
        "whole": {"device_map": {"": "cpu"}},
        "split": {"device_map": modules},
        "disk": {"device_map": modules, "offload_folder": EmptyFolder()},
    }
    return maps[row["map"]]


def _options(row: Mapping[str, str]) -> dict[str, Any]:
    """The load options of a row."""
    values: dict[str, dict[str, Any]] = {
        "eager": {"attn_implementation": "eager"},
        "sdpa": {"attn_implementation": "sdpa"},
        "safetensors": {"use_safetensors": True},
        "pickle": {"use_safetensors": False},
        "fp16": {"variant": "fp16"},
        "inner": {"subfolder": "inner"},
        "mapped": {"key_mapping": {r"^module\.": ""}},
        "ignoring": {"ignore_mismatched_sizes": True},
        "memory": dict(IN_MEMORY),
        "buffers": {"offload_buffers": True},
        "epsilon": {"rms_norm_eps": 1e-3},
    }
    options = {**_DTYPES[row["dtype"]], **_device_map(row)}
    for value in row.values():
        options |= values.get(value, {})
    return options


def _case(number: int, row: Mapping[str, str]) -> Case:
    """The case of a row."""
    changed = [row[factor] for factor, (default, *_) in FACTORS.items() if row[factor] != default]
    words = [f"{number:03}", *changed]
    return Case(
        "combo/" + "-".join(words if changed else [*words, "plain"]),
        _clauses(row),
        CHECKPOINTS[row["recipe"]][0],
        _faults(row),
        _CLASSES[row["class"]],
        _options(row),
        given=None if row["source"] == "memory" else "",
        plain=row["info"] == "plain",
    )


ROWS = covering_array(FACTORS, IMPOSSIBLE)

CASES = [_case(number, row) for number, row in enumerate(ROWS, start=1)]


def case_with(clause: str, **values: Sequence[str]) -> Case:
    """Of the cases that cite the clause and have one of the values of each factor, the plainest.

    The fewest clauses stand before it: there a divergence of its kinds is most surely its own.

    Raises:
        ValueError: no case has them together; a table of pairs holds every two, not every three.
    """
    fitting = [
        case
        for row, case in zip(ROWS, CASES, strict=True)
        if all(row[factor] in wanted for factor, wanted in values.items())
        and clause in case.clauses
    ]
    if not fitting:
        raise ValueError(f"no case cites {clause} and has {values}")
    return min(fitting, key=lambda case: (case.clauses.index(clause), len(case.clauses)))
