"""How one fault is planted in stock: in what goes in, in what comes out, or around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from conformance.observe.loaders import Loader, stock


@dataclass
class Load:
    """One call of a loader.

    Attributes:
        loader: who loads.
        model_class, source, options: what it is given; a fault may change them.
        result: what it returns; None before.
    """

    loader: Loader
    model_class: Any
    source: Any
    options: dict[str, Any]
    result: Any = None

    @property
    def model(self) -> Any:
        """The model, alone or beside its loading info."""
        return self.result[0] if isinstance(self.result, tuple) else self.result

    @property
    def base(self) -> Any:
        """The model without its head."""
        return getattr(self.model, "model", self.model)

    @property
    def head(self) -> Any:
        """The layer on top; None if there is none."""
        return getattr(self.model, "lm_head", None) or getattr(self.model, "score", None)

    @property
    def info(self) -> dict[str, Any]:
        """The loading info; empty if none was asked for."""
        return self.result[1] if isinstance(self.result, tuple) else {}

    @property
    def stored(self) -> dict[str, torch.Tensor]:
        """The tensors in the safetensors of the folder that is loaded."""
        files = sorted(Path(self.source).glob("*.safetensors")) if self.source else []
        return {key: tensor for file in files for key, tensor in load_file(file).items()}

    def run(self, **options: Any) -> Any:
        """What the loader returns, with some options otherwise."""
        return self.loader(self.model_class, self.source, **(self.options | options))

    def make_up(self) -> None:
        """Let the result be a model of random weights and a clean report."""
        config = self.model_class.config_class.from_pretrained(self.source)
        fields = ("missing_keys", "unexpected_keys", "mismatched_keys")
        clean: dict[str, Any] = {field: set() for field in fields}
        self.result = self.model_class(config).eval(), clean | {"error_msgs": []}


@dataclass(frozen=True)
class Mutant:
    """A loader with one fault.

    Attributes:
        name: `conformance.mutants:NAME` is its loader.
        clause: the clause that must catch it.
        case: a case of the clause in which it shows.
        fault: what is wrong with it, in a sentence.
        loader: the loader.
        of: the loader that the fault is planted in: stock, or the reference for a fault that
            stock has itself.
        ends: whether it ends its process, or blocks it for ever.
    """

    name: str
    clause: str
    case: str
    fault: str
    loader: Loader
    of: Loader = stock
    ends: bool = False


Act = Callable[[Load], None]
Surroundings = Callable[[Load], AbstractContextManager[None]]


def going_in(clause: str, case: str, of: Loader = stock) -> Callable[[Act], Mutant]:
    """Stock, or another loader, given what the function makes of a load."""

    def planted(act: Act) -> Mutant:
        @contextmanager
        def before(load: Load) -> Iterator[None]:
            act(load)
            yield

        return _mutant(act, clause, case, before, of)

    return planted


def coming_out(clause: str, case: str, of: Loader = stock) -> Callable[[Act], Mutant]:
    """Stock, or another loader, and what the function makes of its result."""

    def planted(act: Act) -> Mutant:
        @contextmanager
        def after(load: Load) -> Iterator[None]:
            yield
            with torch.no_grad():
                act(load)

        return _mutant(act, clause, case, after, of)

    return planted


def around(clause: str, case: str) -> Callable[[Callable[[Load], Iterator[None]]], Mutant]:
    """Stock in surroundings that a generator sets or leaves; stock runs while it yields.

    One that swallows stock's error must set `load.result`.
    """

    def planted(generate: Callable[[Load], Iterator[None]]) -> Mutant:
        return _mutant(generate, clause, case, contextmanager(generate), stock)

    return planted


def ignoring(option: str, clause: str, case: str, of: Loader = stock) -> Mutant:
    """Stock, or another loader, without an option, which is dropped without a word."""

    def drop(load: Load) -> None:
        load.options.pop(option, None)

    drop.__name__, drop.__doc__ = f"{option}_ignored", f"The option `{option}` is ignored."
    return going_in(clause, case, of)(drop)


def _mutant(
    act: Callable[..., Any], clause: str, case: str, surroundings: Surroundings, of: Loader
) -> Mutant:
    def loader(model_class: Any, source: Any, **options: Any) -> Any:
        load = Load(of, model_class, source, options)
        with surroundings(load):
            load.result = load.run()
        return load.result

    fault = (act.__doc__ or "").strip()
    loader.__name__, loader.__doc__ = act.__name__, fault
    return Mutant(act.__name__, clause, case, fault, loader, of)
