"""Cases of stage CFG: config."""

from __future__ import annotations

from conformance.cases.case import (
    AUTO,
    BASE,
    CAUSAL,
    INVALID,
    NO_FILES,
    TWO_SHARDS,
    Case,
    ConfigFolder,
    ConfigObject,
    rejected,
)

# Without a config stock makes one up, and a Llama of default size does not fit everywhere.
SMALL = "conformance.world.user_models:WithSmallConfig"
HOOKED = "conformance.world.user_models:WithHook"
STRETCHED = ConfigFolder("llama-f32", ("rope-linear-old", "dtype-beside-torch-dtype"))
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}

CASES = [
    Case("cfg/old-names", ("CFG-1", "DTY-1", "INI-1", "OUT-2"), "llama-old-config"),
    Case("cfg/new-names", ("CFG-1", "DTY-1", "INI-1", "OUT-2"), "llama-bf16"),
    Case("cfg/object", ("CFG-2", "CFG-40"), options={"config": ConfigObject()}),
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
        model="conformance.world.user_models:WithHook",
        options={"gain": 0.5},
    ),
    Case("cfg/generation", ("CFG-4", "OUT-3"), "llama-generation", greedy=True),
    Case("cfg/no-generation-file", ("CFG-4", "OUT-3"), greedy=True),
    Case(
        "cfg/generation-above-subfolder",
        ("CFG-24",),
        "llama-generation",
        ("subfolder", "generation-of-another"),
        options={"subfolder": "inner"},
    ),
    Case("cfg/auto-class", ("CFG-5",), model=AUTO),
    Case("cfg/auto-base-class", ("CFG-5", "MAP-2"), model="transformers:AutoModel"),
    rejected(
        "cfg/no-config",
        "CFG-6",
        "checkpoint",
        faults=("no-config",),
        model="conformance.world.user_models:WithSmallConfig",
    ),
    rejected(
        "cfg/no-config-base",
        "CFG-6",
        "checkpoint",
        faults=("no-config",),
        model="conformance.world.user_models:WithSmallConfigBase",
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
    *(
        Case(f"cfg/{name}", ("CFG-1", "INI-1", "OUT-2"), faults=(name,))
        for kind in ("base", "linear", "llama3")
        for name in (f"rope-{kind}", f"rope-{kind}-old")
    ),
    # Frequencies that depend on the prompt have no formula to be held against.
    *(
        Case(f"cfg/{name}", ("CFG-1",), faults=(name,))
        for name in ("rope-dynamic", "rope-dynamic-old")
    ),
    *(
        Case(f"cfg/{name}", ("CFG-10",), faults=(name,))
        for name in ("dtype-beside-torch-dtype", "torch-dtype-beside-dtype")
    ),
    rejected(
        "cfg/unknown-type-auto", "CFG-11", "no-such-model", faults=("unknown-type",), model=AUTO
    ),
    rejected(
        "cfg/without-type-auto", "CFG-11", "config.json", faults=("without-type",), model=AUTO
    ),
    *(
        Case(f"cfg/{name}", ("CFG-12", "MAP-1"), faults=(name,))
        for name in ("unknown-type", "without-type")
    ),
    *(
        Case(f"cfg/{name}", ("CFG-13",), faults=(name,), model=AUTO)
        for name in ("without-architectures", "empty-architectures", "other-architectures")
    ),
    Case("cfg/other-architectures-explicit", ("CFG-13",), faults=("other-architectures",)),
    rejected(
        "cfg/generation-not-json",
        "CFG-14",
        "generation_config.json",
        faults=("generation-not-json",),
    ),
    rejected(
        "cfg/generation-no-object",
        "CFG-14",
        "generation_config.json",
        faults=("generation-no-object",),
    ),
    Case("cfg/generation-not-json-base", ("CFG-15",), faults=("generation-not-json",), model=BASE),
    rejected(
        "cfg/generation-nonsense-value",
        "CFG-20",
        "generation_config.json",
        "max_new_tokens",
        faults=("generation-nonsense-value",),
    ),
    Case("cfg/generation-own-field", ("CFG-4",), faults=("generation-own-field",)),
    Case("cfg/override-nested", ("CFG-3", "OUT-1"), options={"rope_parameters": LINEAR}),
    rejected("cfg/unknown-keyword", "CFG-16", "no_such_option", options={"no_such_option": 1}),
    rejected(
        "cfg/unknown-keyword-auto",
        "CFG-16",
        "no_such_option",
        model=AUTO,
        options={"no_such_option": 1},
    ),
    Case(
        "cfg/object-and-model-argument",
        ("CFG-17", "CFG-2"),
        model=HOOKED,
        options={"config": ConfigObject(), "gain": 0.5},
    ),
    rejected(
        "cfg/object-and-override",
        "CFG-17",
        "rms_norm_eps",
        options={"config": ConfigObject(), "rms_norm_eps": 0.1},
    ),
    Case(
        "cfg/object-and-attention",
        ("CFG-2", "CFG-9"),
        options={"config": ConfigObject(), "attn_implementation": "eager"},
    ),
    *(
        Case(f"cfg/path{how}", ("CFG-21",), model=model, options={"config": STRETCHED})
        for how, model in (("", CAUSAL), ("-auto", AUTO))
    ),
    rejected(
        "cfg/path-to-nothing",
        "CFG-21",
        "/nonexistent/nowhere",
        options={"config": "/nonexistent/nowhere"},
    ),
    Case("cfg/without-pad-phi", ("CFG-22",), "phi", model="transformers:PhiForCausalLM"),
    Case(
        "cfg/without-pad-stablelm",
        ("CFG-22",),
        "stablelm",
        model="transformers:StableLmForCausalLM",
    ),
    rejected("cfg/dict", "CFG-18", "config=", options={"config": {"model_type": "llama"}}),
    rejected("cfg/number", "CFG-18", "config=7", options={"config": 7}),
    rejected(
        "cfg/attention-unknown",
        "CFG-19",
        "no-such-attention",
        options={"attn_implementation": "no-such-attention"},
    ),
    rejected(
        "cfg/attention-unknown-auto",
        "CFG-19",
        "no-such-attention",
        model=AUTO,
        options={"attn_implementation": "no-such-attention"},
    ),
    *(
        rejected(f"cfg/{name}", "CFG-7", "config.json", faults=(f"config-{name}",), model=AUTO)
        for name in ("is-empty", "is-a-list", "is-not-utf8", "is-nested", "ends-in-a-hole")
    ),
    *(
        rejected(f"cfg/{name}", "CFG-6", "checkpoint", faults=(f"config-{name}",), model=SMALL)
        for name in NO_FILES
    ),
    rejected(
        "cfg/is-unreadable",
        "FMT-18",
        "config.json",
        faults=("config-is-unreadable",),
        model=AUTO,
        under=("unprivileged",),
    ),
    *(
        Case(f"cfg/generation-config-{name}", ("CFG-23",), "llama-generation", (fault,))
        for name in NO_FILES
        for fault in (f"generation-config-{name}",)
    ),
    rejected(
        "cfg/generation-config-is-unreadable",
        "FMT-18",
        "generation_config.json",
        recipe="llama-generation",
        faults=("generation-config-is-unreadable",),
        under=("unprivileged",),
    ),
]
