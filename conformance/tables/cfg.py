"""CFG: the config."""

from __future__ import annotations

from conformance.case import AUTO, INVALID, TWO_SHARDS, Case, ConfigObject, rejected

CASES = [
    Case("cfg/old-names", ("CFG-1", "DTY-1", "INI-1", "OUT-2"), "llama-old-config"),
    Case("cfg/new-names", ("CFG-1", "DTY-1", "INI-1", "OUT-2"), "llama-bf16"),
    Case("cfg/object", ("CFG-2",), options={"config": ConfigObject()}),
    Case(
        "cfg/object-other-dtype",
        ("CFG-2", "DTY-7"),
        options={"config": ConfigObject(), "dtype": "bfloat16"},
    ),
    Case(
        "cfg/object-changed",
        ("CFG-2", "CFG-3"),
        options={"config": ConfigObject({"rms_norm_eps": 0.1})},
    ),
    Case("cfg/override", ("CFG-3", "OUT-1"), options={"rms_norm_eps": 0.1}),
    Case(
        "cfg/override-rejects-shape",
        ("MIS-4", "STA-2"),
        input_class=INVALID,
        names=("embed_tokens.weight",),
        options={"vocab_size": 64},
    ),
    Case(
        "cfg/model-argument",
        ("CFG-3",),
        model="conformance.models:WithHook",
        options={"gain": 0.5},
    ),
    Case("cfg/generation", ("CFG-4", "OUT-3"), "llama-generation", greedy=True),
    Case("cfg/no-generation-file", ("CFG-4", "OUT-3"), greedy=True),
    Case("cfg/auto-class", ("CFG-5",), model=AUTO),
    Case("cfg/auto-base-class", ("CFG-5", "MAP-2"), model="transformers:AutoModel"),
    rejected(
        "cfg/no-config",
        "CFG-6",
        "checkpoint",
        faults=("no-config",),
        model="conformance.models:WithSmallConfig",
    ),
    rejected(
        "cfg/no-config-base",
        "CFG-6",
        "checkpoint",
        faults=("no-config",),
        model="conformance.models:WithSmallConfigBase",
    ),
    rejected(
        "cfg/not-json-sharded",
        "CFG-7",
        "config.json",
        recipe=TWO_SHARDS,
        faults=("config-not-json",),
        model=AUTO,
    ),
    rejected("cfg/not-json", "CFG-7", "config.json", faults=("config-not-json",)),
    Case("cfg/name-and-dtype", ("CFG-8",), "llama-bf16-2", options={"dtype": "float16"}),
    *(
        Case(f"cfg/attention-{name}", ("CFG-9", "OUT-1"), options={"attn_implementation": name})
        for name in ("eager", "sdpa")
    ),
]
