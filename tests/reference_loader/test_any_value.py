"""Options and config fields of every wrong type, size and sign: a model, or a LoadError.

Nothing is allocated for what is then refused. `-m slow` draws pairs of them, and many more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM

import reference_loader
from conformance.world.memory import resident
from conformance_fixtures.write import materialise
from reference_loader.errors import LoadError
from reference_loader.llama import Llama
from reference_loader.options import REFUSED, WITHOUT_EFFECT, Options

#: What JSON can hold and what only Python can, each a value that some option is not made for.
JSON: list[Any] = [
    *(None, True, False, 0, 1, -1, 3, 7, 64, 2**20, 2**31, 2**63, 10**30, -(2**40)),
    *(0.0, 0.5, -1.5, 1e9, math.nan, math.inf, -math.inf),
    *("", "a", "cpu", "auto", "float32", "0", "../..", "a\0b", "\ud800", "x" * 300, "a/b", "{}"),
    *([], [1], ["a"], [None], [[]], [-1, 2**40], {}, {"a": 1}, {"": "cpu"}, {"a": None}),
]
PYTHON: list[Any] = [
    *(b"", b"abc", (), ("a",), {1}, frozenset(), 1j, object(), object, len, Path("a"), range(3)),
    *(torch.float32, torch.int8, torch.device("cpu"), torch.ones(2), torch.ones(2, device="meta")),
    *(
        {1: 2},
        {"cpu": -1},
        {"": {}},
        {None: None},
        {"a": torch.ones(1)},
        nn.Linear,
        nn.Linear(1, 1),
    ),
]
OPTIONS = sorted(Options.names() | REFUSED | WITHOUT_EFFECT | {"torch_dtype", "source"})
CLASSES = {"none": None, "class": LlamaForCausalLM, "auto": AutoModelForCausalLM, "plain": Llama}
ENTRIES: dict[str, Callable[..., Any]] = {
    "from_pretrained": reference_loader.from_pretrained,
    "plan": reference_loader.plan,
}
FIELDS = sorted(json.loads((materialise("llama-f32") / "config.json").read_text()))


def outcome(call: Callable[[], Any]) -> LoadError | None:
    """What the call raises, if it is a LoadError; any other exception passes."""
    before = resident("RssAnon")[0]
    try:
        call()
    except LoadError as error:
        assert resident("RssAnon")[0] - before < 2**26
        return error
    return None
