"""Readers: what users have, one file a format, as documents.

    reader = make_reader("mmc4", pictures="shards/images")

A new format is one new file with a `Reader` and one line in `READERS`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any

from mm1.data.readers.captions import Captions
from mm1.data.readers.html import Html
from mm1.data.readers.hub import Hub
from mm1.data.readers.image_folder import ImageFolder
from mm1.data.readers.llava import Llava
from mm1.data.readers.mmc4 import Mmc4
from mm1.data.readers.obelics import Obelics
from mm1.data.readers.reader import Reader
from mm1.data.readers.text import PlainText
from mm1.data.readers.webdataset import WebDataset
from mm1.errors import UserError

READERS: dict[str, type[Reader]] = {
    "webdataset": WebDataset,
    "obelics": Obelics,
    "captions": Captions,
    "mmc4": Mmc4,
    "text": PlainText,
    "llava": Llava,
    "image-folder": ImageFolder,
    "html": Html,
    "hub": Hub,
}


def make_reader(name: str, **options: Any) -> Reader:
    """Return the reader of a format.

    Args:
        name: One of `READERS`.
        options: The reader's options (the fields of its class); those not given have their defaults.

    Raises:
        UserError: If the format or an option is unknown, or an option's value is of the wrong type.
    """
    if name not in READERS:
        raise UserError(f"no format is called '{name}': {did_you_mean(name, READERS)}")
    known = {field.name: field.default for field in dataclasses.fields(READERS[name])}  # type: ignore[arg-type]
    for option, value in options.items():
        if option not in known:
            raise UserError(f"format '{name}' has no option '{option}': {did_you_mean(option, known)}")
        if type(value) is not type(known[option]) and not (isinstance(known[option], float) and type(value) is int):
            raise UserError(
                f"option '{option}' of format '{name}' must be of type {type(known[option]).__name__} "
                f"(given: {value!r})"
            )
    return READERS[name](**options)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the nearest known ones, or all."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.4)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known) or 'none'}"
