"""What `save_pretrained` writes of a loaded model, as pairs of facts: what must be, and what is.

What must be is read from the checkpoint that was loaded, so that no other loader is needed.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from conformance.cases.case import SEED, Case
from conformance.observe.baseline import PLACING
from conformance.observe.experiment import Pairs, Usage, facts_of, paired
from conformance.observe.facts import model_of, observe_tensors
from conformance.observe.keywords import keywords
from conformance.observe.loaders import Loader
from conformance.results.fingerprint import fingerprints

INDEX = "model.safetensors.index.json"

# So small that every fixture is saved in several files.
SHARD = "10KB"


@dataclass(frozen=True)
class Saved:
    """A model that was loaded and saved.

    Attributes:
        usage: what was loaded.
        model: the model, as it was loaded.
        info: its loading info.
        state: its tensors as they are in memory; name to facts.
        stored: the tensors of the checkpoint that was loaded.
        folder: where it was saved.
        files: file to what it holds.
    """

    usage: Usage
    model: Any
    info: dict[str, Any]
    state: dict[str, Any]
    stored: dict[str, torch.Tensor]
    folder: Path
    files: dict[str, dict[str, torch.Tensor]]

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that was saved."""
        return {key: tensor for file in self.files.values() for key, tensor in file.items()}

    def one_name(self, name: str) -> str:
        """The first of the names that are tied to this one."""
        storage = self.state[name]["storage"] if name in self.state else None
        return next((n for n, each in self.state.items() if each["storage"] == storage), name)

    def published(self) -> dict[str, torch.Tensor | None]:
        """What must be saved: name to the stored tensor, None for what the checkpoint lacks.

        A key keeps its name, but for the prefix of the base model; of tied names one is saved.
        """
        prefix = f"{self.model.base_model_prefix}."
        # Releases 4.51 to 4.57 list the names alone.
        mismatched = self.info["mismatched_keys"]
        replaced = {each if isinstance(each, str) else each[0] for each in mismatched}
        found: dict[str, torch.Tensor | None] = {}
        for key, tensor in self.stored.items():
            forms = (key, f"{prefix}{key}", key.removeprefix(prefix))
            name = next((form for form in forms if form in self.state), key)
            if key not in self.info["unexpected_keys"]:
                found[self.one_name(name)] = None if name in replaced else tensor
        return found | {self.one_name(n): None for n in self.info["missing_keys"]}


@contextmanager
def saved(usage: Usage, **options: Any) -> Iterator[Saved]:
    """Load the case and save it; the folder lasts as long as the block."""
    model, info = usage.again(usage.source)
    # What is on disk has its values in another load.
    on_disk = any(tensor.is_meta for tensor in model.state_dict().values())
    state = observe_tensors(usage.model(without=PLACING) if on_disk else model)
    kept = {name: each for name, each in state.items() if name in model.state_dict()}
    with tempfile.TemporaryDirectory(prefix="conformance-saved-") as folder:
        model.save_pretrained(folder, **options)
        stored = {k: t for file in tensors_in(usage.source).values() for k, t in file.items()}
        files = tensors_in(Path(folder))
        yield Saved(usage, model, info, kept, stored, Path(folder), files)


def save(case: Case, loader: Loader, folder: Path) -> str:
    """Load the checkpoint of a case and save the model; the error, "" if there is none."""
    model_class = case.model_class()
    options, _ = keywords(case, case.source(), model_class)
    torch.manual_seed(SEED)
    try:
        model: Any = model_of(loader(model_class, str(case.source()), **options))
        model.save_pretrained(folder)
    except Exception as cause:
        return f"{type(cause).__name__}: {cause}"
    return ""


def tensors_in(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The safetensors files of a folder: name to tensors."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found[path.name] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  no mapping
    return found


def saved_names(it: Saved) -> Pairs:
    """Each weight is saved under the name that the checkpoint has for it, and nothing else is."""
    written = {it.one_name(name): "saved" for name in it.tensors}
    return paired(dict.fromkeys(it.published(), "saved"), written)


def saved_values(it: Saved) -> Pairs:
    """Each saved tensor is the stored one, cast once; what the load initialised is the model's."""
    written = {it.one_name(name): tensor for name, tensor in it.tensors.items()}
    pairs: Pairs = {}
    for name, tensor in it.published().items():
        if tensor is None:
            expected = f"{it.state[name]['dtype']} {it.state[name]['fingerprint']}"
        else:
            dtype = it.model.dtype if tensor.is_floating_point() else tensor.dtype
            expected = _told(name, tensor.to(dtype))
        if name in written:  # else it breaks SAV-1
            pairs[name] = (expected, _told(name, written[name]))
    return pairs


def _told(name: str, tensor: torch.Tensor) -> str:
    """The dtype and the fingerprint of a tensor."""
    return f"{tensor.dtype} {fingerprints({name: tensor})[name]}"


def nothing_lost(it: Saved) -> Pairs:
    """As many elements are saved as the state dict has, of every tied weight once."""
    held = [each["shape"] for n, each in it.state.items() if it.one_name(n) == n]
    elements = sum(math.prod(shape) for shape in held)
    return {"(elements)": (elements, sum(t.numel() for t in it.tensors.values()))}


def saved_ties(it: Saved) -> Pairs:
    """Of names that are tied one is saved, once."""
    times = Counter(it.one_name(name) for file in it.files.values() for name in file)
    groups = {it.one_name(n) for n in it.state if it.one_name(n) != n}
    return {name: (1, times[name]) for name in sorted(groups)}


def saved_shards(it: Saved) -> Pairs:
    """The index of a checkpoint in shards names every tensor, in the one file that holds it."""
    index = json.loads((it.folder / INDEX).read_text("utf-8"))
    held = [(key, file) for file, tensors in it.files.items() for key in tensors]
    pairs = paired(dict(held), index["weight_map"])
    pairs["(several files)"] = (True, len(it.files) > 1)
    pairs["(in two files)"] = (len(dict(held)), len(held))
    size = sum(tensor.nbytes for tensor in it.tensors.values())
    pairs["total_size"] = (size, index["metadata"]["total_size"])
    return pairs


def loaded_again(it: Saved) -> Pairs:
    """A load of what was saved gives the model that was saved; nothing is missing or left over."""
    result = it.usage.again(it.folder, without=(*PLACING, "state_dict"))
    again = observe_tensors(model_of(result))
    kept = {name: facts for name, facts in again.items() if name in it.state}
    pairs = paired(facts_of(it.state), facts_of(kept))
    for field in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        pairs[f"({field})"] = ([], sorted(map(str, result[1][field])))
    return pairs


def saved_config(it: Saved) -> Pairs:
    """The config says the class and the dtype of the model, and has the fields that it had."""
    written = json.loads((it.folder / "config.json").read_text("utf-8"))
    source = json.loads((it.usage.source / "config.json").read_text("utf-8"))
    # The older name, which releases before 4.56 write beside any field that they do not know.
    dtype = written.get("torch_dtype", written.get("dtype"))
    pairs: Pairs = {
        "architectures": ([type(it.model).__name__], written["architectures"]),
        "dtype": (str(it.model.dtype).removeprefix("torch."), dtype),
    }
    # What an option of the load replaced is the model's.
    for name in ("hidden_size", "vocab_size", "num_hidden_layers", "tie_word_embeddings"):
        pairs[name] = (it.usage.case.options.get(name, source[name]), written.get(name))
    generates = bool(it.model.can_generate())
    there = (it.folder / "generation_config.json").is_file()
    pairs["generation_config.json"] = (generates, there)
    return pairs


# Clause to what is looked at of a model that was saved once, for all of them.
WHOLE: dict[str, Callable[[Saved], Pairs]] = {
    "SAV-1": saved_names,
    "SAV-2": saved_values,
    "SAV-3": saved_ties,
    "SAV-5": loaded_again,
    "SAV-6": saved_config,
    "SAV-7": nothing_lost,
}
# The same of a model that was saved in shards.
IN_SHARDS: dict[str, Callable[[Saved], Pairs]] = {"SAV-4": saved_shards}


def observe_saving(usage: Usage, clauses: Collection[str]) -> dict[str, Pairs]:
    """Clause to what was found; an error is a fact, too."""
    found: dict[str, Pairs] = {}
    for experiments, options in ((WHOLE, {}), (IN_SHARDS, {"max_shard_size": SHARD})):
        asked = [clause for clause in clauses if clause in experiments]
        if not asked:
            continue
        try:
            with saved(usage, **options) as it:
                found |= {clause: _tried(experiments[clause], it) for clause in asked}
        except Exception as error:
            found |= dict.fromkeys(asked, _told_of(error))
    return found


def _tried(experiment: Callable[[Saved], Pairs], it: Saved) -> Pairs:
    """What an experiment found, or its error."""
    try:
        return experiment(it)
    except Exception as error:
        return _told_of(error)


def _told_of(error: Exception) -> Pairs:
    """An error as a fact of an experiment."""
    return {"(error)": ("none", f"{type(error).__name__}: {error}")}
