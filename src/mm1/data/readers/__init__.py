"""Readers: what users have, one file a format, as documents.

    reader = make_reader("mmc4", pictures="shards/images")

A new format is one new file with a `Reader` and one line in `READERS`.
"""

from __future__ import annotations

from typing import Any

from mm1.data.readers.captions import Captions
from mm1.data.readers.html import Html
from mm1.data.readers.hub import Hub
from mm1.data.readers.image_folder import ImageFolder
from mm1.data.readers.llava import Llava
from mm1.data.readers.messages import Messages
from mm1.data.readers.mmc4 import Mmc4
from mm1.data.readers.obelics import Obelics
from mm1.data.readers.questions import Questions
from mm1.data.readers.reader import Reader
from mm1.data.readers.text import PlainText
from mm1.data.readers.webdataset import WebDataset
from mm1.data.registry import make

READERS: dict[str, type[Reader]] = {
    "webdataset": WebDataset,
    "obelics": Obelics,
    "captions": Captions,
    "mmc4": Mmc4,
    "text": PlainText,
    "llava": Llava,
    "messages": Messages,
    "questions": Questions,
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
    return make(READERS, "format", name, options)
