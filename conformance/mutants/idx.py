"""Mutants of stage IDX: shard index."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from transformers import modeling_utils

from conformance.mutants.planting import Load, around, coming_out, going_in
from conformance.observe.loaders import reference

INDEX = "model.safetensors.index.json"


@coming_out("IDX-1", "idx/odd-shard-names")
def layers_of_two_shards_exchanged(load: Load) -> None:
    """The attention of the first layer and that of the last are exchanged."""
    first, last = load.base.layers[0], load.base.layers[-1]
    first.self_attn.q_proj, last.self_attn.q_proj = last.self_attn.q_proj, first.self_attn.q_proj


@around("IDX-1", "idx/2-shards")
def last_shard_skipped(load: Load) -> Iterator[None]:
    """The last of several shards is not read."""
    resolve = modeling_utils._get_resolved_checkpoint_files

    def all_but_the_last(*given: Any, **named: Any) -> Any:
        files, metadata = resolve(*given, **named)
        return (files[:-1] if files and len(files) > 1 else files), metadata

    with patch.object(modeling_utils, "_get_resolved_checkpoint_files", all_but_the_last):
        yield


@coming_out("IDX-2", "idx/stray-duplicate-of-2", of=reference)
def stale_duplicate_loaded(load: Load) -> None:
    """Of two copies of a tensor that in the later file is loaded, whatever the index says."""
    parameters = dict(load.model.named_parameters())
    for key in parameters.keys() & load.stored.keys():
        parameters[key].copy_(load.stored[key])


@around("IDX-6", "idx/absent-shard-of-2")
def absent_shard_passed_over(load: Load) -> Iterator[None]:
    """The shards that are there are loaded, and no more is said."""
    try:
        yield
    except OSError:
        config = load.model_class.config_class.from_pretrained(load.source)
        tensors, load.source = load.stored, None
        load.result = load.run(config=config, state_dict=tensors)


@around("IDX-4", "idx/not-json")
def unreadable_index_made_up(load: Load) -> Iterator[None]:
    """Where the index cannot be read, the weights are random."""
    try:
        yield
    except ValueError:
        load.make_up()


@going_in("IDX-10", "idx/size-wrong")
def total_size_believed(load: Load) -> None:
    """An index whose total size is not that of the shards is refused."""
    path = Path(load.source or "", INDEX)
    if path.is_file():
        told = json.loads(path.read_text("utf-8")).get("metadata", {}).get("total_size")
        held = sum(tensor.nbytes for tensor in load.stored.values())
        if told != held:
            raise ValueError(f"{path}: total_size is {told}, the tensors have {held} bytes")
