"""Writes an HTML page from a template."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any
from unicodedata import category

import jinja2

from mm1.errors import UserError
from mm1.files import write_text


def write_page(path: Path, template: str, **content: Any) -> None:
    """Fill a template of this package and write the page, complete or not at all.

    Args:
        path: The file to write; replaced if it exists.
        template: Name of the template's file.
        content: The template's values.

    Raises:
        UserError: If the file can't be written.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    source = resources.files("mm1.look").joinpath(template).read_text("utf-8")
    page = environment.from_string(source).render(**content)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, page, shared=True)
    except OSError as error:
        raise UserError(f"{path}: the page can't be written ({error.strerror}): choose another file") from None


def printable(text: str) -> str:
    """Replace control characters, which could control the terminal."""
    return "".join("\ufffd" if category(c) == "Cc" and c not in "\n\t" else c for c in text)
