"""Cases whose id is the load itself: what a random test found is judged again by its id alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from conformance.cases.case import CAUSAL, INVALID, VALID, Case, Torch

if TYPE_CHECKING:
    from conformance_fixtures.random_checkpoints import Drawn

# What every id begins with; a token follows.
PREFIX = "drawn/"

# Where the model classes of a token are, options that may run code, how dtypes of torch begin.
MODULES = ("transformers", "conformance.world.user_models")
CODE = ("trust_remote_code", "code_revision", "config", "attn_implementation", "weights_only")
DTYPES = ("float", "bfloat", "int", "uint", "bool", "complex", "half", "double")


@dataclass(frozen=True)
class Load:
    """A checkpoint, the class it is loaded into, and the options.

    Attributes:
        drawn: what is stored.
        model, options: as in a case; of what a case knows to put there, only a `Torch`.
        refused: whether the reference refuses it.
    """

    drawn: Drawn
    model: str = CAUSAL
    options: Mapping[str, Any] = field(default_factory=dict)
    refused: bool = False

    def case(self) -> Case:
        """As the suite takes it."""
        from conformance_fixtures.tokens import pack

        options = {
            name: [value.name] if isinstance(value, Torch) else value
            for name, value in self.options.items()
        }
        data = {"model": self.model, "options": options, "refused": self.refused}
        return Case(
            PREFIX + pack(data | {"drawn": asdict(self.drawn)}),
            ("INF-1",),  # one without a check of its own: those suppose a good checkpoint
            self.drawn.name,
            model=self.model,
            options=dict(self.options),
            input_class=INVALID if self.refused else VALID,
        )


def case_of(identifier: str) -> Case:
    """The case of an id.

    Raises:
        BadToken: see `load_of`.
    """
    return replace(load_of(identifier).case(), id=identifier)


def _refuse_code(load: Load) -> None:
    """A token is no code: it names classes and dtypes that are known, and trusts nothing.

    Raises:
        KeyError: it names something else.
    """
    module, _, attribute = load.model.partition(":")
    # Without a class, the config names one of transformers.
    if load.model and (module not in MODULES or not attribute.isidentifier()):
        raise KeyError(f"the class {load.model!r}")
    for name, value in load.options.items():
        if name in CODE or (isinstance(value, Torch) and not value.name.isidentifier()):
            raise KeyError(f"the option {name!r}")
        if isinstance(value, Torch) and not value.name.startswith(DTYPES):
            raise KeyError(f"the dtype {value.name!r}")


def load_of(identifier: str) -> Load:
    """The load that is the id of a case.

    Raises:
        BadToken: it is malformed.
    """
    from conformance_fixtures.random_checkpoints import Drawn
    from conformance_fixtures.tokens import BadToken, unpack

    data = unpack(identifier.removeprefix(PREFIX))
    try:
        options = {
            name: Torch(*value) if isinstance(value, list) else value
            for name, value in data["options"].items()
        }
        load = Load(**{**data, "options": options, "drawn": Drawn.of(data["drawn"])})
        _refuse_code(load)
        return load
    except (TypeError, KeyError, AttributeError) as cause:
        raise BadToken(f"the token in {identifier!r} makes no load: {cause!r}") from cause
