"""A repository on the Hub as its headers: what a plan is made of, and no weight is downloaded.

The small files come through the cache as ever. Of each safetensors file only the header is asked
for, by a ranged request; a file of the same header and size, with a hole for a payload, stands in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any

from conformance_fixtures.files import write_hollow
from reference_loader.errors import BadTensorFile, DownloadFailed
from reference_loader.options import Options
from reference_loader.source.config_file import read_config
from reference_loader.source.hub import fetch_config
from reference_loader.source.index import parse_index
from reference_loader.source.weight_names import weight_names


@contextmanager
def headers_of(source: str, options: Options) -> Iterator[Path | None]:
    """A folder with headers of a Hub repository, and no weights; gone with the block.

    None where headers are not enough: offline, or where the weights that win are pickled.

    Raises:
        LoadError: see `reference_loader.source.hub.fetch`.
    """
    from huggingface_hub import constants

    if options.local_files_only or constants.HF_HUB_OFFLINE:
        yield None
        return
    folder = fetch_config(source, options)
    pinned = replace(options, revision=_commit(folder))
    with TemporaryDirectory(prefix="conformance-headers-") as held:
        for path in folder.glob("*config.json"):
            copyfile(path, Path(held) / path.name)
        named = read_config(folder).get("transformers_weights")
        chosen = _first(source, weight_names(options, named), pinned, Path(held))
        yield Path(held) if chosen else None


def _commit(folder: Path) -> str:
    """The commit on the Hub that a folder of the cache is of."""
    parts = folder.parts
    return parts[len(parts) - 1 - parts[::-1].index("snapshots") + 1]


def _first(source: str, names: list[str], options: Options, held: Path) -> bool:
    """Write the first of the names that the commit has; False if that is none of safetensors."""
    for name in names:
        if name.endswith(".safetensors") and _write(source, name, options, held):
            return True
        if name.endswith(".safetensors.index.json") and _get(source, name, options, held):
            base = (held / name).parent
            for shard in parse_index(held / name).shards:
                _write(source, shard.relative_to(base).as_posix(), options, held)
            return True
    return False


def _get(source: str, name: str, options: Options, held: Path) -> bool:
    """Whether a repository's commit has the small file, which is then there, beside the headers."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    asked = {"subfolder": options.subfolder or None, "cache_dir": options.cache_dir}
    try:
        path = hf_hub_download(
            source, name, revision=options.revision, token=options.token, **asked
        )
    except EntryNotFoundError:
        return False
    copyfile(path, held / name)
    return True


def _write(source: str, name: str, options: Options, held: Path) -> bool:
    """Whether the commit has the safetensors file, whose hollow stand-in is then there."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import EntryNotFoundError, SafetensorsParsingError

    inside = f"{options.subfolder}/{name}" if options.subfolder else name
    try:
        found = HfApi().parse_safetensors_file_metadata(
            source, inside, revision=options.revision, token=options.token
        )
    except EntryNotFoundError:
        return False
    except SafetensorsParsingError as cause:
        raise BadTensorFile(f"{inside} in {source!r} is damaged: {cause}.") from cause
    except Exception as cause:  # each network library has a family of its own
        raise DownloadFailed(f"The header of {inside} in {source!r}: {cause}.") from cause
    entries: dict[str, Any] = {
        key: {"dtype": each.dtype, "shape": each.shape, "data_offsets": list(each.data_offsets)}
        for key, each in found.tensors.items()
    }
    size = max((each["data_offsets"][1] for each in entries.values()), default=0)
    (held / name).parent.mkdir(parents=True, exist_ok=True)
    header = json.dumps(entries).encode()
    # Padded as writers do, so that the payload is aligned, and can be planned as views.
    write_hollow(held / name, header.ljust(-(-len(header) // 8) * 8), size)
    return True
