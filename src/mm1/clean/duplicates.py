"""Global steps that count: pictures that occur in many documents, and equal documents."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from mm1.clean.pictures import picture_key
from mm1.clean.step import GlobalStep, numbered_images
from mm1.data.masks import WHOLE_DOCUMENT
from mm1.document import Document, Image, Kind, Text

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class RepeatedImages(GlobalStep):
    """Drop pictures that occur in many documents, by their bytes or their web address: adverts, banners.

    Attributes:
        max_documents: Most documents that a picture may occur in (10 in arXiv 2306.16527 and arXiv 2403.09611).
        kinds: Kinds of documents that the step applies to.
    """

    schema: ClassVar[pa.Schema] = pa.schema({"row": pa.int64(), "place": pa.int32(), "key": pa.binary(16)})
    reason: ClassVar[str] = "it comes in too many documents"
    max_documents: int = 10
    kinds: tuple[Kind, ...] = ("interleaved",)

    def facts(self, row: int, document: Document) -> Iterator[tuple[Any, ...]]:
        """Yield one fact for every picture, and another one for its address."""
        if document.kind not in self.kinds:
            return
        for place, image in numbered_images(document):
            yield row, place, picture_key(image)
            if image.data is not None and (image.path or "").startswith(("http://", "https://", "//")):
                yield row, place, picture_key(Image(path=image.path))

    def decide(self, database: duckdb.DuckDBPyConnection) -> str:
        """Select every use of the pictures that occur in too many documents."""
        return f"""
            WITH uses AS (SELECT DISTINCT key, row FROM facts),
                 frequent AS (SELECT key FROM uses GROUP BY key HAVING count(*) > {self.max_documents})
            SELECT DISTINCT row, place FROM facts SEMI JOIN frequent USING (key)
        """  # noqa: S608 - a number


@dataclass(frozen=True)
class ExactDuplicates(GlobalStep):
    """Keep the first of several documents with the same text and pictures; case and white space don't count."""

    schema: ClassVar[pa.Schema] = pa.schema({"row": pa.int64(), "key": pa.binary(16)})
    reason: ClassVar[str] = "the same as one before"

    def facts(self, row: int, document: Document) -> Iterator[tuple[Any, ...]]:
        """Yield the hash of the document's content."""
        digest = hashlib.blake2b(digest_size=16)
        for part in document.parts:
            if isinstance(part, Text):
                digest.update(b"t" + " ".join(part.text.casefold().split()).encode() + b"\0")
            else:
                digest.update(b"i" + picture_key(part))
        yield row, digest.digest()

    def decide(self, database: duckdb.DuckDBPyConnection) -> str:
        """Select all documents but the first one of every content."""
        return f"""
            WITH firsts AS (SELECT key, min(row) AS first FROM facts GROUP BY key HAVING count(*) > 1)
            SELECT row, {WHOLE_DOCUMENT} AS place FROM facts JOIN firsts USING (key) WHERE row <> first
        """  # noqa: S608 - a constant
