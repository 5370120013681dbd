"""What is wrong with a checkpoint's folder: every finding, where a load stops at the first.

Files, index, headers and config are read by the rooms of the reference, so that a folder without
findings is one that it loads. Values are read in pieces: the memory it takes does not depend on the
size of the checkpoint.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from reference_loader import plan
from reference_loader.errors import (
    LoadError,
    NothingMatches,
    UnknownModelClass,
    UnsupportedConversion,
    UnsupportedOption,
    WeightsNotFound,
)
from reference_loader.formats.reader import header, opened
from reference_loader.formats.stored import Format, StoredTensor
from reference_loader.options import Options
from reference_loader.source.config_file import read_config
from reference_loader.source.files import is_file
from reference_loader.source.index import ShardIndex, parse_index
from reference_loader.source.weight_names import weight_names

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)

# The kind of finding that says that no model was planned: its tensors were not held against it.
NOT_JUDGED = "not-judged"

# Bytes that are looked at at once.
PIECE = 1 << 22

# What holds weights, and what a download that was cut leaves.
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".index.json", ".gguf", ".h5", ".msgpack")
PARTIAL = (".incomplete", ".part", ".tmp", ".lock")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth to know.

    Attributes:
        severity: `error`: the checkpoint is not loaded, or not as it should be; `warning`: it is
            loaded, and something in it has no use or no sense; `note`: nothing to mend.
        kind: stable name, kebab-case.
        file: its name within the folder; "" for the folder.
        key: the checkpoint's key, or the model's where a weight is missing; None for no key.
        told: what is wrong, one sentence.
        hint: what to do.
    """

    severity: str
    kind: str
    file: str
    key: str | None
    told: str
    hint: str = ""


@dataclass(frozen=True)
class Examined:
    """What an examination found.

    Attributes:
        folder: the folder.
        findings: the worst first.
        files: weight files read.
        tensors: stored tensors.
        nbytes: bytes of them.
    """

    folder: Path
    findings: tuple[Finding, ...]
    files: int
    tensors: int
    nbytes: int

    @property
    def exit_code(self) -> int:
        """1 if any finding is an error; else 2 if the tensors could not be held against the model,
        else 0."""
        if any(finding.severity == ERROR for finding in self.findings):
            return 1
        return 2 if any(finding.kind == NOT_JUDGED for finding in self.findings) else 0


# Is told how many bytes will be read, and gives what is told of each piece (`report.doctor.bar`).
Progress = Callable[[int], AbstractContextManager[Callable[[int], object]]]


@contextmanager
def silent(total: int) -> Iterator[Callable[[int], object]]:
    """No progress is shown."""
    yield lambda read: None


def examine(
    folder: Path,
    options: Options | None = None,
    progress: Progress = silent,
) -> Examined:
    """Examine a folder; never raises for what is in it.

    Args:
        folder: see `reference_loader.source.checkpoint.open_folder`.
        options: `model_class`, `variant`, `dtype`: those of the load that is meant.
        progress: see `Progress`.
    """
    options = options or Options()
    found: list[Finding] = [*_configs(folder)]
    names = weight_names(options)
    chosen = next((folder / name for name in names if is_file(folder / name)), None)
    if chosen is None:
        told = f"There are no weights; looked for {', '.join(names)}."
        found.append(Finding(ERROR, "no-weights", "", None, told, "Copy them, or see `--variant`."))
        return _examined(folder, found, {})
    index = _index(chosen, found)
    files = _files(chosen, index, found)
    stored = _headers(files, folder, options, found)
    found += _strays(folder, chosen, files)
    if index is not None:
        found += _against_the_index(index, stored)
    found += _dtypes(stored)
    found += _against_the_model(folder, options, found)
    floats = {file: list(filter(_is_float, held.values())) for file, held in stored.items()}
    with progress(sum(t.nbytes for held in floats.values() for t in held)) as read:
        found += _values(floats, options, read)
    return _examined(folder, found, stored)


def _examined(
    folder: Path, found: Iterable[Finding], stored: Mapping[Path, Mapping[str, StoredTensor]]
) -> Examined:
    tensors = [tensor for held in stored.values() for tensor in held.values()]
    ordered = sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))
    size = sum(tensor.nbytes for tensor in tensors)
    return Examined(folder, tuple(ordered), len(stored), len(tensors), size)


def _of(error: LoadError, file: str, severity: str = ERROR) -> Finding:
    return Finding(severity, error.code, file, None, error.message, error.hint)


def _configs(folder: Path) -> Iterator[Finding]:
    for name in ("config.json", "generation_config.json"):
        if name == "config.json" or is_file(folder / name):
            try:
                read_config(folder, name)
            except LoadError as error:
                yield _of(error, name)
                continue
            if name == "generation_config.json":
                yield from _generation(folder, name)


def _generation(folder: Path, name: str) -> Iterator[Finding]:
    from transformers import GenerationConfig

    try:
        GenerationConfig.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # each release checks its fields in its own way
        yield Finding(ERROR, "bad-config", name, None, str(error), "Check its fields.")


def _index(chosen: Path, found: list[Finding]) -> ShardIndex | None:
    if chosen.suffix != ".json":
        return None
    try:
        return parse_index(chosen)
    except LoadError as error:
        found.append(_of(error, chosen.name))
        return None


def _files(chosen: Path, index: ShardIndex | None, found: list[Finding]) -> list[Path]:
    """The weight files that are there; of an index that is of no use, those that look like it."""
    if index is None:
        beside = sorted(chosen.parent.glob(f"{chosen.name.partition('.')[0]}-*-of-*"))
        return beside if chosen.suffix == ".json" else [chosen]
    absent = [shard for shard in index.shards if not is_file(shard)]
    for shard in absent:
        told = f"The index names the shard {shard.name!r}, which is no file."
        found.append(
            Finding(ERROR, "shard-not-found", shard.name, None, told, "Download it again.")
        )
    return [shard for shard in index.shards if shard not in absent]


def _headers(
    files: Sequence[Path], folder: Path, options: Options, found: list[Finding]
) -> dict[Path, dict[str, StoredTensor]]:
    stored = {}
    for file in files:
        try:
            stored[file] = header(file, options)
        except LoadError as error:
            found.append(_of(error, file.relative_to(folder).as_posix()))
    return stored


def _strays(folder: Path, chosen: Path, files: Sequence[Path]) -> Iterator[Finding]:
    """Files that look like weights and are none of these; code, links and halves of downloads."""
    used = {chosen, *files}
    for path in sorted(folder.iterdir()):
        name = path.name
        if path.is_symlink() and not path.exists():
            told = "It is a link to nothing."
            yield Finding(WARNING, "dangling-link", name, None, told, "Download it again.")
        elif name.endswith(PARTIAL):
            told = "It looks like what a cut download leaves."
            yield Finding(
                WARNING, "partial-download", name, None, told, "Download again, remove it."
            )
        elif name.endswith(WEIGHTS) and path not in used:
            same = path.suffix == next(iter(files), chosen).suffix
            told = f"It is not read: the weights are those of {chosen.name}."
            severity = WARNING if same else NOTE
            yield Finding(severity, "stray-file", name, None, told, "Remove it if it is left over.")
        elif name.endswith(".py"):
            told = "It is code, which runs with `trust_remote_code=True` only."
            yield Finding(NOTE, "code", name, None, told, "Read it before you trust it.")
    if chosen.suffix == ".bin" or any(file.suffix == ".bin" for file in files):
        told = "The weights are pickled."
        yield Finding(NOTE, "pickled", chosen.name, None, told, "Convert them to safetensors.")


def _against_the_index(
    index: ShardIndex, stored: Mapping[Path, Mapping[str, StoredTensor]]
) -> Iterator[Finding]:
    holders: dict[str, list[Path]] = defaultdict(list)
    for file, held in stored.items():
        for key in held:
            holders[key].append(file)
    name, again = index.path.name, "Write the index anew."
    for key, shard in index.shard_of.items():
        if shard in stored and key not in stored[shard]:
            elsewhere = [file.name for file in holders.get(key, ())]
            told = f"The index puts it in {shard.name}, which does not hold it"
            told += f"; {', '.join(elsewhere)} does." if elsewhere else "; no shard does."
            kind = "misplaced-key" if elsewhere else "phantom-key"
            yield Finding(WARNING if elsewhere else ERROR, kind, name, key, told, again)
    for key, files in holders.items():
        if key not in index.shard_of:
            told = f"{files[0].name} holds it, and the index does not list it."
            yield Finding(WARNING, "unlisted-key", name, key, told, again)
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            told = f"It is stored in {names}; the index decides, and stock releases do not ask it."
            yield Finding(WARNING, "stored-twice", files[-1].name, key, told, "Remove a copy.")
    yield from _sizes(index, stored)


def _sizes(
    index: ShardIndex, stored: Mapping[Path, Mapping[str, StoredTensor]]
) -> Iterator[Finding]:
    size = sum(tensor.nbytes for held in stored.values() for tensor in held.values())
    whole = len(stored) == len(index.shards)
    if whole and index.path.name.startswith("model.") and index.total_size != size:
        told = f"It gives {index.total_size} as the total size; the shards hold {size:,} bytes."
        yield Finding(NOTE, "total-size", index.path.name, None, told, "No loader asks for it.")


def _dtypes(stored: Mapping[Path, Mapping[str, StoredTensor]]) -> Iterator[Finding]:
    count: Counter[torch.dtype] = Counter()
    for held in stored.values():
        count.update(t.dtype for t in held.values() if t.dtype.is_floating_point)
    if len(count) > 1:
        mixed = ", ".join(f"{number} in {str(d)[6:]}" for d, number in count.most_common())
        told = f"The tensors have more than one dtype: {mixed}."
        yield Finding(NOTE, "dtype-mix", "", None, told, 'Give `dtype`, since "auto" takes one.')


def _against_the_model(
    folder: Path, options: Options, found: Sequence[Finding]
) -> Iterator[Finding]:
    """What a plan says; where another finding already keeps a load from being planned, nothing."""
    try:
        decided = plan(
            folder,
            model_class=options.model_class,
            variant=options.variant,
            trust_remote_code=options.trust_remote_code,
        )
    except (UnknownModelClass, UnsupportedOption, UnsupportedConversion) as error:
        told = f"Names, shapes and missing tensors were not judged. {error.message}"
        yield Finding(WARNING, NOT_JUDGED, "config.json", None, told, error.hint)
        return
    except WeightsNotFound:
        return
    except LoadError as error:
        if isinstance(error, NothingMatches) or all(f.severity != ERROR for f in found):
            yield _of(error, "")
        return
    except Exception as error:  # the model class's own (STA-6)
        told = f"The config makes no model: {type(error).__name__}: {error}"
        yield Finding(ERROR, "bad-config", "config.json", None, told, "Check its fields.")
        return
    named = decided.model_class.__name__
    for key in sorted(decided.missing):
        told = f"{named} needs it and no file holds it: it is initialised at random."
        yield Finding(ERROR, "missing-key", "", key, told, "See the class, or save it again.")
    for each in decided.mismatched:
        told = f"It is stored as {list(each.stored)}; {named} has {list(each.model)}."
        yield Finding(ERROR, "wrong-shape", each.file.name, each.name, told, "Check the config.")
    for key in sorted(decided.unexpected):
        told = f"{named} has no place for it."
        yield Finding(WARNING, "leftover-key", "", key, told, "See the class, or remove it.")
    for key in sorted(decided.ignored):
        yield Finding(NOTE, "computed-key", "", key, f"{named} computes it: it is not read.")


def _is_float(tensor: StoredTensor) -> bool:
    return tensor.dtype.is_floating_point and tensor.nbytes > 0


def _values(
    stored: Mapping[Path, Sequence[StoredTensor]],
    options: Options,
    read: Callable[[int], object],
) -> Iterator[Finding]:
    for file, tensors in stored.items():
        pieces = _pieces_of_safetensors if file.suffix == ".safetensors" else _pieces_of_pickle
        try:
            for tensor, counted in _counted(tensors, pieces(file, tensors, options), read):
                yield from _judged(tensor, counted)
        except (LoadError, OSError, RuntimeError) as error:
            told = f"It cannot be read to its end: {error}"
            yield Finding(ERROR, "bad-tensor-file", file.name, None, told, "Download it again.")


Pieces = Iterable[tuple[StoredTensor, torch.Tensor]]


def _pieces_of_safetensors(
    file: Path, tensors: Sequence[StoredTensor], options: Options
) -> Iterator[tuple[StoredTensor, torch.Tensor]]:
    """Read, not mapped: pages of a mapping would count as memory of this process."""
    with file.open("rb") as source:
        for tensor in tensors:
            source.seek(tensor.start)
            left = tensor.nbytes
            while left:
                content = bytearray(source.read(min(left, PIECE)))
                if not content:
                    raise OSError(f"{file} has become shorter")
                left -= len(content)
                yield tensor, torch.frombuffer(content, dtype=torch.uint8).view(tensor.dtype)


def _pieces_of_pickle(
    file: Path, tensors: Sequence[StoredTensor], options: Options
) -> Iterator[tuple[StoredTensor, torch.Tensor]]:
    source = opened(file, Format.PICKLE, options.weights_only)
    for tensor in tensors:
        flat = source.view(tensor).detach().reshape(-1)
        for piece in torch.split(flat, PIECE // tensor.dtype.itemsize):
            yield tensor, piece


def _counted(
    tensors: Sequence[StoredTensor], pieces: Pieces, read: Callable[[int], object]
) -> Iterator[tuple[StoredTensor, Counter[str]]]:
    """For each tensor how many of its values are NaN and infinite, and whether any is not zero."""
    counts: dict[str, Counter[str]] = {tensor.key: Counter() for tensor in tensors}
    for tensor, piece in pieces:
        values, count = piece.float() if piece.dtype.itemsize == 1 else piece, counts[tensor.key]
        # One pass tells that there is nothing to count; a sum may overflow, and then is counted.
        if not values.sum(dtype=torch.float64).isfinite():
            count["nan"] += int(values.isnan().sum())
            count["infinite"] += int(values.isinf().sum())
        if not count["set"]:
            count["set"] += bool(values.any())
        read(piece.nbytes)
    return iter([(tensor, counts[tensor.key]) for tensor in tensors])


def _judged(tensor: StoredTensor, counted: Counter[str]) -> Iterator[Finding]:
    file, key, number = tensor.file.name, tensor.key, tensor.nbytes // tensor.dtype.itemsize
    of = f"of {number:,} values"
    if counted["nan"]:
        told = f"{counted['nan']:,} {of} are NaN."
        yield Finding(ERROR, "nan", file, key, told, "Save it again from a sound model.")
    if counted["infinite"]:
        told = f"{counted['infinite']:,} {of} are infinite."
        yield Finding(WARNING, "infinity", file, key, told, "Was it cast to a narrower dtype?")
    if not counted["set"] and len(tensor.shape) > 1:
        told = f"All {of[3:]} are zero."
        yield Finding(WARNING, "all-zero", file, key, told, "Is the file whole? See its checksum.")
