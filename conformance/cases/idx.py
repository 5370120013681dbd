"""Cases of stage IDX: shard index."""

from __future__ import annotations

from conformance.cases.case import NO_FILES, TWO_SHARDS, Case, rejected

SEVEN_SHARDS = "llama-f32-7"
KEY = "model.norm.weight"

CASES = [
    *(Case(f"idx/{n}-shards", ("IDX-1", "MAP-1"), f"llama-f32-{n}") for n in (2, 3, 7)),
    Case("idx/a-shard-a-tensor", ("IDX-1", "MAP-1"), "llama-f32-30"),
    Case("idx/one-shard", ("IDX-1",), faults=("index-over-one-shard",)),
    Case("idx/odd-shard-names", ("IDX-1",), TWO_SHARDS, ("odd-shard-names",)),
    *(
        Case(f"idx/stray-duplicate-of-{n}", ("IDX-2",), f"llama-f32-{n}", ("stray-duplicate",))
        for n in (2, 3)
    ),
    *(Case(f"idx/shuffled-{n}", ("IDX-3",), f"llama-f32-{n}", ("shuffled-index",)) for n in (2, 7)),
    rejected(
        "idx/not-json",
        "IDX-4",
        "model.safetensors.index.json",
        recipe=TWO_SHARDS,
        faults=("index-not-json",),
    ),
    rejected(
        "idx/without-metadata",
        "IDX-5",
        "index.json",
        "metadata",
        recipe=TWO_SHARDS,
        faults=("index-without-metadata",),
    ),
    rejected(
        "idx/without-weight-map",
        "IDX-5",
        "index.json",
        "weight_map",
        recipe=TWO_SHARDS,
        faults=("index-without-weight-map",),
    ),
    rejected(
        "idx/empty-weight-map",
        "IDX-5",
        "index.json",
        "weight_map",
        recipe=TWO_SHARDS,
        faults=("index-names-nothing",),
    ),
    rejected(
        "idx/absent-shard-of-2",
        "IDX-6",
        "model-00002-of-00002.safetensors",
        recipe=TWO_SHARDS,
        faults=("absent-shard",),
    ),
    rejected(
        "idx/absent-shard-of-7",
        "IDX-6",
        "model-00007-of-00007.safetensors",
        recipe=SEVEN_SHARDS,
        faults=("absent-shard",),
    ),
    rejected(
        "idx/not-json-of-7",
        "IDX-4",
        "model.safetensors.index.json",
        recipe=SEVEN_SHARDS,
        faults=("index-not-json",),
    ),
    rejected(
        "idx/leads-outside-of-3",
        "IDX-9",
        "index.json",
        "../outside.safetensors",
        recipe="llama-f32-3",
        faults=("index-leads-outside",),
    ),
    rejected(
        "idx/shard-is-a-folder",
        "IDX-6",
        "inner",
        recipe=TWO_SHARDS,
        faults=("index-names-folder",),
    ),
    *(
        rejected(
            f"idx/shard-is-{name}",
            clause,
            "index.json",
            named,
            recipe=TWO_SHARDS,
            faults=(f"index-names-{name}",),
        )
        for clause, named, names in (
            ("IDX-11", "model.norm.weight", ("null", "number")),
            ("IDX-9", "outside.safetensors", ("absolute", "drive")),
        )
        for name in names
    ),
    *(
        Case(f"idx/{name}", ("IDX-10",), TWO_SHARDS, (f"index-{name}",))
        for name in ("metadata-empty", "size-wrong", "size-no-number")
    ),
    Case("idx/phantom-key", ("IDX-7", "INF-2"), TWO_SHARDS, ("phantom-key",)),
    Case("idx/unlisted-key", ("IDX-8",), TWO_SHARDS, ("unlisted-key",)),
    rejected(
        "idx/leads-outside",
        "IDX-9",
        "index.json",
        "../outside.safetensors",
        recipe=TWO_SHARDS,
        faults=("index-leads-outside",),
    ),
    *(
        rejected(
            f"idx/{name}",
            clause,
            "model.safetensors.index.json",
            *names,
            recipe=TWO_SHARDS,
            faults=(f"index-{name}",),
        )
        for clause, name, *names in (
            ("IDX-4", "empty"),
            ("IDX-4", "no-object"),
            ("IDX-4", "not-utf8"),
            ("IDX-4", "nested"),
            ("IDX-4", "ends-in-a-hole"),
            ("IDX-12", "key-twice", KEY),
        )
    ),
    *(
        rejected(
            f"idx/shard-is-{name}",
            clause,
            *names,
            recipe=TWO_SHARDS,
            faults=(f"index-names-{name}",),
        )
        for clause, name, *names in (
            ("IDX-6", "the-folder", "model.safetensors.index.json"),
            ("IDX-6", "a-long-name", "xxxxx.safetensors"),
            ("IDX-6", "a-zero-byte", "model\\x00.safetensors"),
            ("IDX-6", "escapes", "\\x1b[31m\\u202emodel.safetensors"),
            ("IDX-6", "markup", "[red]`x`|.safetensors"),
            ("IDX-9", "share", "index.json", "outside.safetensors"),
            ("IDX-9", "dots-inside", "index.json", "../../outside.safetensors"),
            ("IDX-9", "backslashes", "index.json", "outside.safetensors"),
            ("IDX-13", "itself", "index.json"),
            ("IDX-13", "a-program", "index.json", "pytorch_model.bin"),
        )
    ),
    *(
        rejected(
            f"idx/last-shard-{name}",
            "IDX-6",
            "model-00002-of-00002.safetensors",
            recipe=TWO_SHARDS,
            faults=(f"weights-{name}",),
        )
        for name in NO_FILES
    ),
    rejected(
        "idx/shard-is-a-dangling-link",
        "IDX-6",
        "model-00002-of-00002.safetensors",
        recipe=TWO_SHARDS,
        faults=("dangling-link",),
    ),
    rejected(
        "idx/is-unreadable",
        "FMT-18",
        "model.safetensors.index.json",
        recipe=TWO_SHARDS,
        faults=("index-is-unreadable",),
        under=("unprivileged",),
    ),
]
