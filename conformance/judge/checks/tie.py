"""TIE: tied weights, by storage."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.judge.checks.evidence import Evidence, check, unless_equal
from conformance.results.records import Divergence

HEAD = "lm_head.weight"

# What the families call the embedding.
EMBEDDINGS = ("model.embed_tokens.weight", "shared.weight", "backbone.embeddings.weight")

# What a class ties, whatever the config says.
TIED = {
    "T5ForConditionalGeneration": ("shared.weight", "embed_tokens.weight", HEAD),
    "WithTwin": ("embed_tokens.weight", "twin.weight"),
}

# The model types that are documented to be tied where the config does not say.
TIED_TYPES = ("t5", "mamba")


@check("TIE-1", "TIE-2", "TIE-3", "TIE-7", "TIE-9")
def one_storage(seen: Evidence) -> Iterator[Divergence]:
    """Embedding and head are one storage."""
    yield from unless_equal("tie", HEAD, "the embedding", _storage_of_head(seen))


@check("TIE-4", "TIE-5", "TIE-6")
def two_storages(seen: Evidence) -> Iterator[Divergence]:
    """Embedding and head are two storages."""
    yield from unless_equal("tie", HEAD, "its own", _storage_of_head(seen))


@check("TIE-11")
def tied_by_default(seen: Evidence) -> Iterator[Divergence]:
    """Embedding and head are one storage or two, as the model type is documented."""
    tied = seen.observation.config["model_type"] in TIED_TYPES
    documented = "the embedding" if tied else "its own"
    yield from unless_equal("tie", HEAD, documented, _storage_of_head(seen))


@check("TIE-8", "TIE-10")
def all_names_one_storage(seen: Evidence) -> Iterator[Divergence]:
    """Embedding, head and whatever else is tied to them are one storage."""
    tied = [name for name in seen.tensors if name.endswith(TIED[seen.model_class])]
    for name in tied:
        yield from unless_equal("tie", name, tied[0], seen.tensors[name]["storage"])


def _storage_of_head(seen: Evidence) -> str:
    storage = {name: facts["storage"] for name, facts in seen.tensors.items()}
    embedding = next(name for name in EMBEDDINGS if name in storage)
    return "the embedding" if storage[HEAD] == storage[embedding] else "its own"
