"""The files that renderings are made from: templates, styles and scripts in `templates/`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template

from conformance.results.text import plain


def text(name: str) -> str:
    """The content of a file in `templates/`."""
    return files(__package__).joinpath("templates", name).read_text("utf-8")


@cache
def template(name: str) -> Template:
    """A template in which all that is filled in is escaped, and nothing may be left undefined."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["plain"] = plain
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment.from_string(text(name))
