"""A step of cleaning: a pure function over documents, made from its options and, for some, from facts on all of them.

A local step looks at one document. A global step first gathers facts on every document (in parallel, into Parquet),
then decides in DuckDB, out of core, which documents and pictures are dropped; its function looks that up.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from mm1.data.corpus import Skips
from mm1.document import Document, Image, Part, Text

if TYPE_CHECKING:
    import duckdb

WHOLE_DOCUMENT = -1
"""As a place in a decision: not one part, but all of the document."""


PICTURE = "picture: "
"""Begins the reasons of pictures whose documents stay."""


@dataclass
class Dropped:
    """What one step dropped, by reason, with the first ids of each."""

    documents: int = 0
    images: int = 0
    reasons: Skips = field(default_factory=Skips)

    def drop(self, reason: str, document: Document) -> Document | None:
        """Count a document; return None, which is what a step returns for it."""
        self.documents += 1
        self.reasons.add(reason, document.id)
        return None

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as `corpus.json` has them."""
        return {"documents": self.documents, "images": self.images, "reasons": self.reasons.as_dict()}


Apply = Callable[[int, Document, Dropped], Document | None]
"""From a document and its row in the split: the document as it stays, or None; what is dropped is counted."""


@dataclass(frozen=True)
class Step(ABC):
    """One step; the options are the fields of the (frozen) dataclass."""

    def prepare(self, folder: Path) -> None:  # noqa: B027 - most have nothing to prepare
        """Do what is done once, before any document is looked at; leave its result in the folder."""

    def inputs(self) -> dict[str, str]:
        """Return the content hashes of what it reads beside the corpus that is cleaned."""
        return {}

    @abstractmethod
    def applier(self, folder: Path, rows: range) -> Apply:
        """Return the function for these rows of the split.

        Args:
            folder: Where `prepare` and, for global steps, the decision left their results.
            rows: The rows it will be called for.
        """


class LocalStep(Step):
    """A step that needs nothing but the document."""

    def applier(self, folder: Path, rows: range) -> Apply:
        """Return `apply` for any rows."""
        return lambda row, document, dropped: self.apply(document, dropped)

    @abstractmethod
    def apply(self, document: Document, dropped: Dropped) -> Document | None:
        """Return the document as it stays, or None."""


class GlobalStep(Step):
    """A step that decides from facts on all documents.

    Attributes:
        schema: Columns of the facts; the first is `row`.
        reason: What is counted for what it drops.
    """

    schema: ClassVar[pa.Schema]
    reason: ClassVar[str]

    @abstractmethod
    def facts(self, row: int, document: Document) -> Iterator[tuple[Any, ...]]:
        """Yield the facts on a document, as rows of `schema`."""

    @abstractmethod
    def decide(self, database: duckdb.DuckDBPyConnection) -> str:
        """Return the SQL that selects `(row, place)` of what is dropped, from the view `facts`."""

    def applier(self, folder: Path, rows: range) -> Apply:
        """Return the function that drops what was decided for these rows."""
        within = [("row", ">=", rows.start), ("row", "<", rows.stop)]
        table = pq.read_table(folder / "decision.parquet", filters=within)
        places: dict[int, set[int]] = {}
        for row, place in zip(*(table[name].to_pylist() for name in ("row", "place")), strict=True):
            places.setdefault(row, set()).add(place)

        def apply(row: int, document: Document, dropped: Dropped) -> Document | None:
            here = places.get(row)
            if here is None:
                return document
            if WHOLE_DOCUMENT in here:
                return dropped.drop(self.reason, document)
            return without_images(document, dict.fromkeys(here, self.reason), dropped)

        return apply


def without_images(document: Document, places: Mapping[int, str], dropped: Dropped) -> Document | None:
    """Return the document without the pictures at some places among its parts; count them.

    A caption without its picture, a conversation that lacks one of its pictures, and a page without anything are
    dropped whole.

    Args:
        document: The document.
        places: For every place, the reason why its picture is dropped.
        dropped: Where they are counted.
    """
    if not places:
        return document
    dropped.images += len(places)
    for reason in places.values():
        dropped.reasons.add(f"{PICTURE}{reason}", document.id)
    kept: list[Part] = []
    for place, part in enumerate(document.parts):
        if place in places:
            continue
        # The space that stands between a picture and its text goes with the picture.
        if isinstance(part, Text) and place - 1 in places and not (kept and isinstance(kept[-1], Image)):
            part = replace(part, text=part.text.removeprefix(" "))
        kept.append(part)
    left = replace(document, parts=tuple(kept))
    if document.kind == "chat" or not kept or (document.kind == "caption" and not left.images):
        return dropped.drop("a picture is missing: the document goes with it", document)
    return left


def numbered_images(document: Document) -> Iterator[tuple[int, Image]]:
    """Yield place among the parts and picture, of every picture."""
    return ((place, part) for place, part in enumerate(document.parts) if isinstance(part, Image))


def plain_options(step: Step) -> dict[str, Any]:
    """Return a step's options as JSON values."""
    options: dict[str, Any] = json.loads(json.dumps(asdict(step)))
    return options
