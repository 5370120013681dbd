"""The files that renderings are made from: templates, styles and scripts in `templates/`."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from conformance.results.text import plain


def text(name: str) -> str:
    """The content of a template, style or script in `templates/`."""
    return files(__package__).joinpath("templates", name).read_text("utf-8")


def rich(value: str) -> Markup:
    """A template's text in which `code` is code, and nothing else is markup."""
    parts = re.split(r"`([^`]+)`", plain(value))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part
        for number, part in enumerate(parts)
    )


@cache
def template(name: str) -> Template:
    """A template in which all that is filled in is escaped, and nothing may be left undefined."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["plain"] = plain
    environment.filters["rich"] = rich
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment.from_string(text(name))
