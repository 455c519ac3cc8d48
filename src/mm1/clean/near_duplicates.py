"""Near duplicates by MinHash: keeps the first of every group of documents with nearly the same text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from mm1.clean.minhash import band_keys, bands_for, ngram_hashes, signature, token_hashes
from mm1.clean.step import GlobalStep
from mm1.data.masks import WHOLE_DOCUMENT
from mm1.document import Document, Kind

if TYPE_CHECKING:
    import duckdb

_PAIRS_AT_ONCE = 10_000


@dataclass(frozen=True)
class NearDuplicates(GlobalStep):
    """Keep the first of several documents whose texts share most n-grams of words.

    Candidates agree in a whole band of their MinHash signatures. Every candidate is compared with the first document of
    its band by the whole signature. Groups are the connected components of the pairs that pass.

    Attributes:
        threshold: Least Jaccard similarity of the sets of n-grams at which two documents count as one.
        ngram: Words per n-gram.
        signature_length: Length of the signature; the estimate's standard error is at most 0.5 / sqrt of it.
        kinds: Kinds of documents that the step applies to; not captions, since the same short text may fit other
            pictures.
    """

    schema: ClassVar[pa.Schema] = pa.schema(
        {"row": pa.int64(), "signature": pa.binary(), "bands": pa.list_(pa.uint64())}
    )
    reason: ClassVar[str] = "nearly the same as one before"
    threshold: float = 0.8
    ngram: int = 5
    signature_length: int = 128
    kinds: tuple[Kind, ...] = ("interleaved", "text")

    def facts(self, row: int, document: Document) -> Iterator[tuple[Any, ...]]:
        """Yield the signature of a document's text and the keys of its bands; nothing if it has no n-gram."""
        if document.kind not in self.kinds:
            return
        hashes = ngram_hashes(token_hashes(document.text), self.ngram)
        if len(hashes):
            of_text = signature(hashes, self.signature_length)
            yield row, of_text.tobytes(), band_keys(of_text, *bands_for(self.threshold, self.signature_length))

    def decide(self, database: duckdb.DuckDBPyConnection) -> str:
        """Select all but the first document of every group."""
        database.execute("""
            CREATE TABLE candidates AS
            WITH keys AS (SELECT row, unnest(bands) AS key FROM facts),
                 firsts AS (SELECT key, min(row) AS first FROM keys GROUP BY key HAVING count(*) > 1)
            SELECT DISTINCT row, first FROM keys JOIN firsts USING (key) WHERE row <> first
        """)
        database.execute("CREATE TABLE pairs (row BIGINT, first BIGINT)")
        self._compare(database)
        database.execute("""
            CREATE TABLE edges AS SELECT row AS a, first AS b FROM pairs UNION SELECT first, row FROM pairs;
            CREATE TABLE labels AS SELECT DISTINCT a AS row, a AS label FROM edges;
        """)
        # Every document takes the lowest label among its neighbours, and then the label of that label, until none
        # changes.
        changed = 1
        while changed:
            database.execute("""
                CREATE OR REPLACE TABLE lowered AS
                SELECT own.row, least(any_value(own.label), min(next.label)) AS label
                FROM labels AS own JOIN edges ON a = own.row JOIN labels AS next ON next.row = b
                GROUP BY own.row
            """)
            database.execute("""
                CREATE OR REPLACE TABLE jumped AS
                SELECT one.row, two.label FROM lowered AS one JOIN lowered AS two ON two.row = one.label
            """)
            counted = database.execute(
                "SELECT count(*) FROM labels JOIN jumped USING (row) WHERE labels.label <> jumped.label"
            ).fetchall()
            changed = counted[0][0]
            database.execute("CREATE OR REPLACE TABLE labels AS SELECT * FROM jumped")
        return f"SELECT row, {WHOLE_DOCUMENT} AS place FROM labels WHERE row <> label"  # noqa: S608 - a constant

    def _compare(self, database: duckdb.DuckDBPyConnection) -> None:
        """Fill `pairs` with the candidates whose whole signatures are similar enough."""
        relation = database.cursor().sql("""
            SELECT candidates.row, first, mine.signature AS mine, its.signature AS its
            FROM candidates JOIN facts AS mine ON mine.row = candidates.row JOIN facts AS its ON its.row = first
        """)
        batches: pa.RecordBatchReader = relation.to_arrow_reader(_PAIRS_AT_ONCE)
        for batch in batches:
            mine, its = (
                np.frombuffer(b"".join(batch[name].to_pylist()), np.uint32).reshape(-1, self.signature_length)
                for name in ("mine", "its")
            )
            similar = (mine == its).mean(axis=1) >= self.threshold
            passed = pa.table(batch.select(["row", "first"]).filter(pa.array(similar)))  # noqa: F841 - read by DuckDB
            database.execute("INSERT INTO pairs SELECT row, first FROM passed")
