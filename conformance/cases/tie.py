"""Cases of stage TIE: tied weights."""

from __future__ import annotations

from typing import Any

from conformance.cases.case import HALF, TWO_SHARDS, Case, EmptyFolder, rejected

T5 = "transformers:T5ForConditionalGeneration"
MAMBA = "transformers:MambaForCausalLM"
WITH_TWIN = "conformance.world.user_models:WithTwin"

# Tie flag and what is stored, to the clauses; the recipe and the id say the same two things.
CLAUSES = {
    ("tied", "embedding"): ("TIE-1", "INF-2"),
    ("tied", "head"): ("TIE-2", "INF-2", "MIS-3"),
    ("tied", "equal"): ("TIE-3",),
    ("tied", "separate"): ("TIE-4",),
    ("tied", "neither"): ("TIE-7", "INF-2", "MIS-2"),
    ("untied", "embedding"): ("TIE-6", "INF-2"),
    ("untied", "head"): ("TIE-6", "INF-2"),
    ("untied", "equal"): ("TIE-5",),
    ("untied", "separate"): ("TIE-5",),
    ("untied", "neither"): ("TIE-6", "INF-2", "MIS-2"),
}
BRAIN = {"dtype": "bfloat16"}
WORDS = {"embedding": "embedding-only", "head": "head-only", "separate": "different"}
PLACES: dict[str, dict[str, Any]] = {
    "": {},
    "-map": {"device_map": {"": "cpu"}},
    "-disk": {"device_map": {"": "disk"}, "offload_folder": EmptyFolder()},
}

T5_STORED = {
    "first-name": "t5-tied-embedding",
    "inner-name": "t5-tied-inner",
    "head-only": "t5-tied-head",
    "all-names": "t5-tied-equal-2",
}
TOLERANT = {"ignore_mismatched_sizes": True}


def by_flag_and_stored(flag: str, stored: str, place: str) -> Case:
    """One of thirty cases, whose id names the flag, what is stored and the place."""
    prefix = "" if flag == "tied" else "untied-"
    # Both stored and not tied is what every checkpoint without a tie is.
    plain = (flag, stored) == ("untied", "separate")
    whole = "OFF-4" if flag == "tied" else "OFF-2"
    missing = stored == "neither" or (flag == "untied" and stored in ("embedding", "head"))
    on_disk = ("OFF-5" if missing else whole, "OFF-6", "PLC-4")
    return Case(
        f"tie/{prefix}{WORDS.get(stored, stored)}{place}",
        (*CLAUSES[flag, stored], *(on_disk if place == "-disk" else ())),
        "llama-f32" if plain else f"llama-{flag}-{stored}",
        options=PLACES[place],
    )


def with_a_wrong_shape(name: str, fault: str, place: str = "", **more: Any) -> Case:
    """Both stored, equal but for the last row, which one of them lacks."""
    clauses = ("TIE-9", "INF-5", "MIS-3", *(("OFF-4",) if place == "-disk" else ()))
    options = TOLERANT | PLACES[place] | more
    return Case(f"tie/{name}{place}", clauses, "llama-tied-equal", (fault,), options=options)


CASES = [
    *(by_flag_and_stored(*key, place) for key in CLAUSES for place in PLACES),
    Case("tie/embedding-only-sharded", ("TIE-1",), "llama-tied-embedding-3"),
    Case("tie/equal-sharded", ("TIE-3",), "llama-tied-equal-3"),
    Case("tie/embedding-only-cast", ("TIE-1",), "llama-tied-embedding", options=HALF),
    Case("tie/head-only-cast", ("TIE-2", "MIS-3"), "llama-tied-head", options=BRAIN),
    Case("tie/equal-cast", ("TIE-3",), "llama-tied-equal", options=HALF),
    Case("tie/different-cast", ("TIE-4",), "llama-tied-separate", options=HALF),
    Case(
        "tie/untied-by-override",
        ("TIE-6", "CFG-3"),
        "llama-tied-embedding",
        options={"tie_word_embeddings": False},
    ),
    Case(
        "tie/tied-by-override",
        ("TIE-1", "CFG-3", "INF-2"),
        "llama-untied-embedding",
        options={"tie_word_embeddings": True},
    ),
    Case("tie/neither-bf16", ("TIE-7", "MIS-2"), "llama-tied-neither", options=BRAIN),
    *(
        Case(
            f"tie/t5-{name}{place}",
            ("TIE-8", "MIS-3", *(("OFF-4", "OFF-6", "PLC-4") if place else ())),
            recipe,
            model=T5,
            options=PLACES[place],
        )
        for name, recipe in T5_STORED.items()
        for place in ("", "-disk")
    ),
    Case("tie/t5-all-names-cast", ("TIE-8", "DTY-9"), "t5-tied-equal-2", model=T5, options=BRAIN),
    Case("tie/t5-head-apart", ("TIE-5",), "t5-untied-separate", model=T5),
    Case("tie/flag-left-out", ("TIE-11",), "llama-untied-equal", ("without-tie-flag",)),
    Case(
        "tie/flag-left-out-t5",
        ("TIE-11",),
        "t5-tied-embedding",
        ("without-tie-flag",),
        model=T5,
    ),
    Case(
        "tie/flag-left-out-mamba",
        ("TIE-11",),
        "mamba-tied-embedding",
        ("without-tie-flag", "without-rescaling"),
        model=MAMBA,
    ),
    with_a_wrong_shape("head-wrong-shape", "short-head"),
    with_a_wrong_shape("head-wrong-shape", "short-head", "-disk"),
    with_a_wrong_shape("embedding-wrong-shape", "short-embedding"),
    with_a_wrong_shape("embedding-wrong-shape-cast", "short-embedding", **HALF),
    Case(
        "tie/both-wrong-shape",
        ("TIE-9", "INF-5", "MIS-1", "MIS-2"),
        "llama-tied-equal",
        options=TOLERANT | {"vocab_size": 130},
    ),
    rejected(
        "tie/wrong-shape-refused",
        "MIS-4",
        "lm_head.weight",
        recipe="llama-tied-equal",
        faults=("short-head",),
    ),
    Case(
        "tie/made-by-constructor",
        ("TIE-10", "INF-2", "MIS-3"),
        "llama-tied-embedding",
        model=WITH_TWIN,
    ),
    Case(
        "tie/made-by-constructor-cast",
        ("TIE-10", "MIS-3"),
        TWO_SHARDS,
        model=WITH_TWIN,
        options=HALF,
    ),
]
