"""A cleaning step: a pure function over documents, made from the step's options and, for some, from facts on all.

A local step needs one document. A global step first gathers facts on every document (in parallel, into Parquet), then
decides in DuckDB, out of core, which documents and pictures to drop; its function looks up the decision.
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

from mm1.data.masks import WHOLE_DOCUMENT, kept_parts
from mm1.data.skips import Skips
from mm1.document import Document, Image, Part, Text

if TYPE_CHECKING:
    import duckdb


PICTURE = "picture: "
"""Prefix of the reasons for pictures that are dropped while their documents stay."""


@dataclass
class Dropped:
    """What one step dropped, by reason, with the first ids for each.

    Attributes:
        documents: Number of dropped documents.
        images: Number of dropped pictures.
        reasons: The reasons of both.
        last: Of the document that something was last dropped of: place among its parts -> reason.
    """

    documents: int = 0
    images: int = 0
    reasons: Skips = field(default_factory=Skips)
    last: dict[int, str] = field(default_factory=dict)

    def drop(self, reason: str, document: Document) -> Document | None:
        """Count a dropped document; return None, the step's result for it."""
        self.last = {WHOLE_DOCUMENT: reason}
        self.documents += 1
        self.reasons.add(reason, document.id)
        return None

    def as_dict(self) -> dict[str, Any]:
        """Return the counts for `corpus.json`."""
        return {"documents": self.documents, "images": self.images, "reasons": self.reasons.as_dict()}


Apply = Callable[[int, Document, Dropped], Document | None]
"""Takes a document's row in the split and the document; returns the kept document or None, and counts what it drops."""


@dataclass(frozen=True)
class Step(ABC):
    """One step; its options are the fields of the (frozen) dataclass."""

    def prepare(self, folder: Path) -> None:  # noqa: B027 - most steps have nothing to prepare
        """Prepare the step once, before any document is read, and write the result into the folder."""

    def inputs(self) -> dict[str, str]:
        """Return the content hashes of the splits that the step reads besides the corpus that is cleaned."""
        return {}

    @abstractmethod
    def applier(self, folder: Path, rows: range) -> Apply:
        """Return the function for these rows of the split.

        Args:
            folder: The folder with the results of `prepare` and, for global steps, the decision.
            rows: The rows that the function is called for.
        """


class LocalStep(Step):
    """A step that needs only the document."""

    def applier(self, folder: Path, rows: range) -> Apply:
        """Return `apply` for any rows."""
        return lambda row, document, dropped: self.apply(document, dropped)

    @abstractmethod
    def apply(self, document: Document, dropped: Dropped) -> Document | None:
        """Return the kept document, or None."""


class GlobalStep(Step):
    """A step that decides from facts on all documents.

    Attributes:
        schema: Columns of the facts; the first is `row`.
        reason: The reason under which dropped documents and pictures are counted.
    """

    schema: ClassVar[pa.Schema]
    reason: ClassVar[str]

    @abstractmethod
    def facts(self, row: int, document: Document) -> Iterator[tuple[Any, ...]]:
        """Yield the facts on a document, as rows of `schema`."""

    @abstractmethod
    def decide(self, database: duckdb.DuckDBPyConnection) -> str:
        """Return the SQL that selects `(row, place)` of what to drop from the view `facts`."""

    def applier(self, folder: Path, rows: range) -> Apply:
        """Return the function that applies the decision for these rows."""
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
    """Return the document without the pictures at the given places, which are counted.

    A caption without its picture, a conversation that lacks one of its pictures, and an empty page are dropped
    completely.

    Args:
        document: The document.
        places: Index of a picture among the document's parts -> the reason why it is dropped.
        dropped: Counts the dropped pictures and documents.
    """
    if not places:
        return document
    dropped.images += len(places)
    dropped.last = {place: f"{PICTURE}{reason}" for place, reason in places.items()}
    for reason in places.values():
        dropped.reasons.add(f"{PICTURE}{reason}", document.id)
    kept: list[Part] = []
    for place, loses_space in kept_parts([isinstance(part, Image) for part in document.parts], places):
        part = document.parts[place]
        # The space between a picture and its text is removed with the picture.
        kept.append(replace(part, text=part.text.removeprefix(" ")) if loses_space and isinstance(part, Text) else part)
    left = replace(document, parts=tuple(kept))
    if document.kind == "chat" or not kept or (document.kind == "caption" and not left.images):
        return dropped.drop("a picture is missing: the document goes with it", document)
    return left


def numbered_images(document: Document) -> Iterator[tuple[int, Image]]:
    """Yield (index among the parts, picture) for every picture."""
    return ((place, part) for place, part in enumerate(document.parts) if isinstance(part, Image))


def plain_options(step: Step) -> dict[str, Any]:
    """Return a step's options as JSON values."""
    options: dict[str, Any] = json.loads(json.dumps(asdict(step)))
    return options
