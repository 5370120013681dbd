"""Cases of stage RES: source and weight file selection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conformance.cases.case import (
    AUTO,
    BASE,
    CHUNK,
    CONFIG_REPOSITORY,
    HALF,
    HALF_FILE,
    IN_MEMORY,
    INVALID,
    NO_FILES,
    SPOILED,
    TWO_SHARDS,
    Case,
    CommitId,
    ConfigObject,
    EmptyFolder,
    Failure,
    OnHub,
    Push,
    SpoiledStateDict,
    rejected,
)

PASSED = {"config": ConfigObject()}
FP16 = {"variant": "fp16"}
INNER = {"subfolder": "inner"}
ONLY_SAFE = {"use_safetensors": True}

# Without a config stock makes one up, and a Llama of default size does not fit everywhere.
SMALL = "conformance.world.user_models:WithSmallConfig"
CONFIG, GENERATION = "config.json", "generation_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FIRST_SHARD, SECOND_SHARD = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
TOKEN = "hf_of_the_case"
ONLY_CACHE = {"local_files_only": True}
ALL = ("*",)


def by_id(name: str, *clauses: str, recipe: str = "llama-f32", **more: Any) -> Case:
    """A load by id; keywords that are not fields of a case are fields of its Hub."""
    return Case(f"res/hub-{name}", clauses, recipe, **_sorted(more))


def refused(name: str, clause: str, *names: str, **more: Any) -> Case:
    """A load by id that is rejected with an error that contains `names`."""
    return rejected(f"res/hub-{name}", clause, *names, **_sorted(more))


def _sorted(given: dict[str, Any]) -> dict[str, Any]:
    of_hub = {name: given.pop(name) for name in list(given) if name in OnHub.__dataclass_fields__}
    return {**given, "hub": OnHub(**of_hub)}


def failing(path: str, status: int = 503) -> dict[str, Any]:
    """Everything asked for under the path is answered with the status."""
    return {"failures": (Failure(path, status),)}


def cut(after: int, times: int) -> dict[str, Any]:
    """So many times the connection breaks after some bytes of a weight file."""
    return {"failures": (Failure("/cdn/*", cut=after, times=times),)}


CASES = [
    Case("res/single", ("RES-1", "MAP-1", "OUT-1")),
    Case("res/single-bf16", ("RES-1", "MAP-1"), "llama-bf16"),
    rejected("res/no-folder-above", "RES-5", "no/where", folder=Path("/nonexistent/no/where")),
    Case("res/single-beside-index", ("RES-2",), TWO_SHARDS, ("single-beside-index",)),
    Case("res/bin-beside-single", ("RES-3",), faults=("bin-beside-safetensors",)),
    Case("res/bin-beside-sharded", ("RES-3",), TWO_SHARDS, ("bin-beside-safetensors",)),
    Case(
        "res/use-safetensors",
        ("RES-3",),
        faults=("bin-beside-safetensors",),
        options={"use_safetensors": True},
    ),
    rejected("res/no-weights", "RES-4", "model.safetensors", "checkpoint", faults=("no-weights",)),
    rejected("res/no-folder", "RES-5", "nowhere", folder=Path("/nonexistent/nowhere")),
    Case("res/subfolder", ("RES-6",), faults=("subfolder",), options={"subfolder": "inner"}),
    Case(
        "res/subfolder-sharded",
        ("RES-6",),
        TWO_SHARDS,
        ("subfolder",),
        options={"subfolder": "inner"},
    ),
    Case("res/variant", ("RES-7",), faults=("variant-fp16",), options={"variant": "fp16"}),
    Case(
        "res/variant-sharded",
        ("RES-7",),
        TWO_SHARDS,
        ("variant-fp16",),
        options={"variant": "fp16"},
    ),
    rejected("res/variant-absent", "RES-4", "model.fp16.safetensors", options={"variant": "fp16"}),
    Case("res/pickled", ("RES-8", "OUT-1"), "llama-bf16", ("pickled",)),
    Case("res/pickled-sharded", ("RES-8",), "llama-f32-3", ("pickled",)),
    Case("res/pickled-tied", ("RES-8", "TIE-3"), "llama-tied-equal", ("pickled",)),
    Case(
        "res/pickled-beside-safetensors",
        ("RES-8",),
        faults=("bin-beside-safetensors",),
        options={"use_safetensors": False},
    ),
    rejected(
        "res/only-pickled", "RES-4", "model.safetensors", faults=("pickled",), options=ONLY_SAFE
    ),
    Case("res/file", ("RES-9",), model=BASE, options=PASSED, given="model.safetensors"),
    Case("res/file-that-generates", ("RES-9",), options=PASSED, given="model.safetensors"),
    Case("res/state-dict", ("RES-10",), options=IN_MEMORY, given=None),
    Case("res/state-dict-cast", ("RES-10", "DTY-7"), options=IN_MEMORY | HALF, given=None),
    Case("res/state-dict-base", ("RES-10", "MAP-2"), model=BASE, options=IN_MEMORY, given=None),
    Case(
        "res/state-dict-tied",
        ("RES-10", "TIE-1"),
        "llama-tied-embedding",
        options=IN_MEMORY,
        given=None,
    ),
    rejected("res/state-dict-and-source", "RES-11", "state", options=IN_MEMORY),
    rejected("res/nothing", "RES-11", "state", options=PASSED, given=None),
    Case("res/named-by-config", ("RES-12",), faults=("renamed-and-named",)),
    Case("res/named-by-config-half", ("RES-12",), "llama-f16", ("renamed-and-named",)),
    rejected("res/named-outside", "RES-13", "../outside.safetensors", faults=("named-outside",)),
    rejected("res/named-as-pickle", "RES-13", "pytorch_model.bin", faults=("named-as-pickle",)),
    Case("res/bin-beside-its-index", ("RES-8",), "llama-f32-3", ("pickled", "bin-beside-index")),
    Case("res/variant-pickled", ("RES-7",), faults=("pickled", "bin-variant-fp16"), options=FP16),
    rejected("res/subfolder-absent", "RES-5", "inner", options={"subfolder": "inner"}),
    rejected(
        "res/only-safetensors",
        "RES-4",
        "pytorch_model.bin",
        "checkpoint",
        options={"use_safetensors": False},
    ),
    rejected("res/dangling-link", "RES-4", "model.safetensors", faults=("dangling-link",)),
    Case("res/index-named-by-config", ("RES-12",), TWO_SHARDS, ("index-renamed-and-named",)),
    Case("res/pickled-in-subfolder", ("RES-6",), faults=("pickled", "subfolder"), options=INNER),
    *(
        rejected(f"res/weights-{name}", "RES-4", "model.safetensors", faults=(f"weights-{name}",))
        for name in NO_FILES
    ),
    *(
        rejected(
            f"res/index-{name}",
            "RES-4",
            "model.safetensors",
            "checkpoint",
            recipe=TWO_SHARDS,
            faults=(f"index-{name}",),
        )
        for name in NO_FILES
    ),
    *(
        rejected(
            f"res/pickle-{name}", "RES-4", "pytorch_model.bin", faults=("pickled", f"pickle-{name}")
        )
        for name in NO_FILES
    ),
    # By the id of a repository on the Hub.
    # What is loaded.
    by_id("single", "RES-14", "MAP-1", "OUT-1"),
    by_id("sharded", "RES-14", "MAP-1", recipe=TWO_SHARDS),
    by_id("pickled", "RES-14", "RES-8", faults=("pickled",)),
    by_id("pickled-sharded", "RES-14", "RES-8", recipe=TWO_SHARDS, faults=("pickled",)),
    by_id("bin-beside-single", "RES-14", "RES-3", faults=("bin-beside-safetensors",)),
    by_id("bare-name", "RES-14", repository="tiny"),
    by_id("auto-class", "RES-14", "CFG-4", recipe="llama-generation", model=AUTO),
    by_id("branch", "RES-14", branch="next", newer="llama-f16", options={"revision": "next"}),
    by_id("tag", "RES-14", tag="v1", newer="llama-f16", options={"revision": "v1"}),
    by_id("commit", "RES-14", newer="llama-f16", options={"revision": CommitId()}),
    by_id("subfolder", "RES-14", "RES-6", faults=("subfolder",), options={"subfolder": "inner"}),
    by_id(
        "subfolder-sharded",
        "RES-14",
        "RES-6",
        recipe=TWO_SHARDS,
        faults=("subfolder",),
        options={"subfolder": "inner"},
    ),
    by_id("variant", "RES-14", "RES-7", faults=("variant-fp16",), options={"variant": "fp16"}),
    by_id("named-by-config", "RES-12", "RES-14", faults=("renamed-and-named",)),
    by_id("private", "RES-14", "INF-9", token=TOKEN, options={"token": TOKEN}),
    by_id("gated", "RES-14", "INF-9", token=TOKEN, gated=True, options={"token": TOKEN}),
    by_id(
        "config-of-another",
        "RES-14",
        faults=("no-config",),
        config="llama-f32",
        model=BASE,
        options={"config": CONFIG_REPOSITORY},
    ),
    # Which commit.
    by_id("push-before-weights", "RES-15", push=Push("llama-f16", before=f"*/{WEIGHTS}")),
    by_id(
        "push-before-index",
        "RES-15",
        recipe=TWO_SHARDS,
        push=Push("llama-f16-2", before=f"*/{INDEX}"),
    ),
    by_id(
        "push-after-index",
        "RES-15",
        recipe=TWO_SHARDS,
        push=Push("llama-f16-2", after=f"*/{INDEX}"),
    ),
    by_id(
        "push-before-generation-config",
        "RES-15",
        recipe="llama-generation",
        push=Push("llama-f32", before=f"*/{GENERATION}"),
    ),
    # The cache.
    by_id("cached", "RES-16", cached=ALL),
    by_id("cached-sharded", "RES-16", recipe=TWO_SHARDS, cached=ALL),
    by_id("cached-in-part", "RES-16", recipe=TWO_SHARDS, cached=(FIRST_SHARD,)),
    by_id("forced", "RES-16", cached=ALL, options={"force_download": True}),
    by_id(
        "forced-sharded", "RES-16", recipe=TWO_SHARDS, cached=ALL, options={"force_download": True}
    ),
    by_id("only-cache", "RES-16", cached=ALL, newer="llama-f16", options=ONLY_CACHE),
    by_id("only-cache-pickled", "RES-16", faults=("pickled",), cached=ALL, options=ONLY_CACHE),
    by_id("offline", "RES-16", cached=ALL, offline=True),
    by_id("offline-sharded", "RES-16", recipe=TWO_SHARDS, cached=ALL, offline=True),
    by_id("cache-dir", "RES-16", cached=ALL, options={"cache_dir": EmptyFolder(), **ONLY_CACHE}),
    by_id("down", "RES-16", recipe="llama-generation", cached=ALL, **failing("*")),
    # Missing, or not for this token.
    refused("no-repository", "RES-17", "org/none", given="org/none"),
    refused("no-branch", "RES-17", "v9", "org/tiny", options={"revision": "v9"}),
    refused("no-commit", "RES-17", "0" * 40, "org/tiny", options={"revision": "0" * 40}),
    refused("no-config", "CFG-6", "org/tiny", faults=("no-config",), model=SMALL),
    refused("no-weights", "RES-17", "org/tiny", WEIGHTS, faults=("no-weights",)),
    refused(
        "no-variant", "RES-17", "org/tiny", "model.fp8.safetensors", options={"variant": "fp8"}
    ),
    refused(
        "no-subfolder", "CFG-6", "org/tiny", "other", model=SMALL, options={"subfolder": "other"}
    ),
    refused("no-shard", "RES-17", SECOND_SHARD, recipe=TWO_SHARDS, faults=("absent-shard",)),
    refused("private-without-token", "RES-17", "org/tiny", token=TOKEN, options={"token": False}),
    refused(
        "gated-without-token",
        "RES-17",
        "org/tiny",
        token=TOKEN,
        gated=True,
        options={"token": False},
    ),
    refused(
        "gated-wrong-token",
        "RES-17",
        "org/tiny",
        token=TOKEN,
        gated=True,
        options={"token": "hf_wrong"},
    ),
    Case(
        "res/hub-gated-token-untold",
        ("INF-9", "RES-17"),
        hub=OnHub(token=TOKEN, gated=True),
        options={"token": "hf_wrong"},
        names=("org/tiny",),
        input_class=INVALID,
    ),
    refused("only-cache-empty", "RES-17", "org/tiny", options=ONLY_CACHE),
    refused("offline-empty", "RES-17", "org/tiny", offline=True),
    refused(
        "offline-without-weights",
        "RES-17",
        "org/tiny",
        WEIGHTS,
        cached=(CONFIG,),
        offline=True,
    ),
    refused(
        "offline-without-shard",
        "RES-17",
        SECOND_SHARD,
        recipe=TWO_SHARDS,
        cached=("*.json", FIRST_SHARD),
        offline=True,
    ),
    refused(
        "offline-other-revision",
        "RES-17",
        "org/tiny",
        "v9",
        cached=ALL,
        offline=True,
        options={"revision": "v9"},
    ),
    # Broken connections.
    by_id("cut-once", "RES-18", "MAP-1", **cut(HALF_FILE, 1), input_class="acceptable"),
    by_id(
        "cut-once-sharded",
        "RES-18",
        recipe=TWO_SHARDS,
        **cut(HALF_FILE, 1),
        input_class="acceptable",
    ),
    refused("cut-always", "RES-18", "org/tiny", **cut(CHUNK // 2, 1000)),
    refused("cut-always-sharded", "RES-18", "org/tiny", recipe=TWO_SHARDS, **cut(CHUNK // 2, 1000)),
    by_id("half-in-cache", "RES-18", "MAP-1", half=True),
    refused(
        "half-in-cache-offline",
        "RES-18",
        "org/tiny",
        half=True,
        cached=(CONFIG,),
        offline=True,
    ),
    # Failures.
    refused(
        "failing-weights",
        "RES-19",
        WEIGHTS,
        faults=("bin-beside-safetensors",),
        **failing(f"*/{WEIGHTS}"),
    ),
    refused(
        "failing-content",
        "RES-19",
        WEIGHTS,
        faults=("bin-beside-safetensors",),
        **failing(f"/cdn/*/{WEIGHTS}"),
    ),
    refused(
        "failing-index",
        "RES-19",
        INDEX,
        recipe=TWO_SHARDS,
        faults=("bin-beside-safetensors",),
        **failing(f"*/{INDEX}"),
    ),
    refused(
        "failing-shard", "RES-19", SECOND_SHARD, recipe=TWO_SHARDS, **failing(f"*/{SECOND_SHARD}")
    ),
    refused("failing-config", "RES-19", CONFIG, model=SMALL, **failing(f"*/{CONFIG}")),
    refused(
        "failing-generation-config",
        "RES-19",
        GENERATION,
        recipe="llama-generation",
        **failing(f"*/{GENERATION}"),
    ),
    refused(
        "forbidden-weights",
        "RES-19",
        WEIGHTS,
        faults=("bin-beside-safetensors",),
        **failing(f"*/{WEIGHTS}", 403),
    ),
    # Options and state dicts that are wrong.
    *(
        rejected(f"res/wrong-{words}", "RES-21", name, options={name: value})
        for words, name, value in (
            ("subfolder", "subfolder", 5),
            ("variant", "variant", 3),
            ("use-safetensors", "use_safetensors", "yes"),
            ("mismatch-flag", "ignore_mismatched_sizes", "no"),
            ("buffers-flag", "offload_buffers", "no"),
            ("generation-config", "generation_config", {"max_length": 3}),
            ("mapping", "key_mapping", ["a"]),
            ("mapping-key", "key_mapping", {5: "x"}),
            ("mapping-pattern", "key_mapping", {"(": ""}),
            ("mapping-group", "key_mapping", {"model": r"\9"}),
        )
    ),
    *(
        rejected(
            f"res/state-dict-{entry}",
            "RES-22",
            "lm_head.weight",
            given=None,
            options={"config": ConfigObject(), "state_dict": SpoiledStateDict(entry)},
        )
        for entry in SPOILED
    ),
    refused("disk-full", "RES-20", "org/tiny", under=("disk-full",)),
]
