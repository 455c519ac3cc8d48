"""The one record that everything speaks: an ordered sequence of text and pictures.

A caption is a picture followed by text; a web page is what it is; a conversation marks which of its texts
are learned; a few-shot prompt is a document put together from others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from mm1.errors import UserError

Kind = Literal["caption", "interleaved", "text", "chat"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True, init=False)
class Text:
    """A stretch of text.

    Attributes:
        text: The characters, exactly as they are to be tokenized (leading space included).
        target: Whether the language model is trained to predict it. Prompts and questions are none.
    """

    text: str
    target: bool

    def __init__(self, text: str, target: bool = True, *, learned: bool | None = None) -> None:
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "target", target if learned is None else learned)

    @property
    def learned(self) -> bool:
        """The older name of `target`."""
        return self.target


@dataclass(frozen=True, slots=True)
class Image:
    """A picture in its encoded form (PNG, JPEG, WebP, ...): bytes, or a file that holds them.

    Attributes:
        data: The encoded bytes; None if they are to be read from `path`.
        path: Where the bytes are, or where they came from.
        whole: Whether it is shown as one image even to a model that cuts pictures into sub-images. Prompts say so of
            some of their shots; corpora don't keep it.
    """

    data: bytes | None = None
    path: str | None = None
    whole: bool = False

    def read(self) -> bytes:
        """Return the encoded bytes.

        Raises:
            UserError: If the file named by `path` can't be read.
        """
        if self.data is not None:
            return self.data
        if self.path is None:
            raise UserError("an image part has neither bytes nor a path: give it one of the two")
        try:
            return Path(self.path).read_bytes()
        except OSError as error:
            raise UserError(f"{self.path}: the image can't be read ({error.strerror}): check the path") from None


Part = Text | Image


@dataclass(frozen=True, slots=True)
class Document:
    """An ordered sequence of `Text` and `Image` parts.

    Attributes:
        id: Unique within its corpus split.
        kind: What sort of document it is; the mixture of pre-training is a mixture of kinds.
        parts: Text and pictures in reading order.
        meta: Whatever else is known of it (question, answers, convention, URL, ...): JSON values only.
    """

    id: str
    kind: Kind
    parts: tuple[Part, ...]
    meta: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def images(self) -> tuple[Image, ...]:
        """The pictures, in reading order."""
        return tuple(part for part in self.parts if isinstance(part, Image))

    @property
    def text(self) -> str:
        """All the text joined, without the pictures."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))
