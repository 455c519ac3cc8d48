"""A corpus: a directory of documents stored as Arrow, with a `corpus.json` that says where they came from.

    data/scenes/
      corpus.json            name, licence, sources, how it was derived, counts, skips, content hashes
      train/00000.arrow      documents of the split `train`, memory-mapped, random access by row
      heldout/00000.arrow

A corpus is written into a temporary directory beside its final place and renamed when it is complete, so a
directory with a `corpus.json` is always a whole corpus.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value, concatenate_datasets
from datasets.arrow_writer import ArrowWriter

import mm1
from mm1.document import KINDS, Document, Image, Part, Text
from mm1.errors import UserError

FEATURES = Features(
    {
        "id": Value("string"),
        "kind": Value("string"),
        "parts": List(
            {
                "text": Value("string"),
                "image": Value("large_binary"),
                "path": Value("string"),
                "learned": Value("bool"),
            }
        ),
        "meta": Value("string"),
    }
)
_ROWS_PER_BATCH = 200
_EXAMPLES_PER_SKIP_REASON = 5


def data_directory() -> Path:
    """Where corpora are built and looked for: `$MM1_DATA`, else `./data`."""
    return Path(os.environ.get("MM1_DATA", "data"))


@dataclass
class Skips:
    """What a reader left out: counted by reason, with the first few examples of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, example: str) -> None:
        """Count one skipped item, naming it."""
        self.counts[reason] += 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _EXAMPLES_PER_SKIP_REASON:
            examples.append(example)

    def as_dict(self) -> dict[str, Any]:
        """Return `{reason: {"count": ..., "examples": [...]}}`."""
        return {r: {"count": n, "examples": self.examples[r]} for r, n in sorted(self.counts.items())}


def to_row(document: Document) -> dict[str, Any]:
    """Return the Arrow row of a document (see `FEATURES`)."""
    parts: list[dict[str, Any]] = []
    for part in document.parts:
        if isinstance(part, Text):
            parts.append({"text": part.text, "image": None, "path": None, "learned": part.learned})
        else:
            parts.append({"text": None, "image": part.data, "path": part.path, "learned": False})
    meta = json.dumps(dict(document.meta), ensure_ascii=False, sort_keys=True)
    return {"id": document.id, "kind": document.kind, "parts": parts, "meta": meta}


def from_row(row: Mapping[str, Any]) -> Document:
    """Return the document of an Arrow row; the inverse of `to_row`."""
    parts: list[Part] = []
    for part in row["parts"]:
        if part["text"] is not None:
            parts.append(Text(part["text"], part["learned"]))
        else:
            parts.append(Image(part["image"], part["path"]))
    return Document(row["id"], row["kind"], tuple(parts), json.loads(row["meta"]))


class Split:
    """One split of a corpus, opened for reading: a sequence of documents.

    Args:
        directory: The split's directory, such as `data/scenes/train`.

    Raises:
        UserError: If there is no such corpus or split.
    """

    def __init__(self, directory: Path) -> None:
        info_file = directory.parent / "corpus.json"
        if not info_file.is_file():
            raise UserError(
                f"{directory.parent}: no corpus there (no corpus.json): build it with "
                f"`mm1 data build {directory.parent.name}`"
            )
        corpus = json.loads(info_file.read_text())
        if directory.name not in corpus["splits"]:
            raise UserError(
                f"{directory}: the corpus has no split '{directory.name}': it has {', '.join(corpus['splits'])}"
            )
        self.directory = directory
        self.corpus: dict[str, Any] = corpus
        self.info: dict[str, Any] = corpus["splits"][directory.name]
        self.content_hash: str = self.info["content_hash"]
        shards = [Dataset.from_file(str(file)) for file in sorted(directory.glob("*.arrow"))]
        self._rows = concatenate_datasets(shards) if len(shards) > 1 else shards[0]

    @property
    def name(self) -> str:
        """`corpus/split`, as recipes write it."""
        return f"{self.directory.parent.name}/{self.directory.name}"

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Document:
        return from_row(self._rows[index])

    def __iter__(self) -> Iterator[Document]:
        return (from_row(row) for row in self._rows)


def open_split(reference: str) -> Split:
    """Open `corpus/split` from the data directory, or the split at a path.

    Args:
        reference: `scenes/train` (a corpus of the data directory), or a path such as `/my/corpora/news/train`.

    Raises:
        UserError: If there is no such corpus or split.
    """
    path = Path(reference)
    named = data_directory() / reference
    return Split(path if (path.parent / "corpus.json").is_file() and not named.is_dir() else named)


def write_corpus(
    directory: Path,
    splits: Mapping[str, Iterable[Document]],
    *,
    licence: str,
    sources: list[str],
    derived: str | None = None,
    options: Mapping[str, Any] | None = None,
    skips: Skips | None = None,
) -> dict[str, Any]:
    """Write documents to `directory`, complete or not at all.

    Args:
        directory: Where the corpus is to be; replaced if it exists.
        splits: The documents of each split. Generators are consumed one after another.
        licence: The licence of the material, for people to read.
        sources: Packages, files or addresses that the material came from.
        derived: If documents were made from the sources by a rule, the rule in a sentence or two.
        options: What the builder was asked for (sizes, counts, seed): the same options give the same corpus.
        skips: What was left out; read after all splits are consumed.

    Returns:
        The content of `corpus.json`.

    Raises:
        UserError: If two documents of a split share an id, or the disk is full.
    """
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        info: dict[str, Any] = {
            "name": directory.name,
            "licence": licence,
            "sources": sources,
            "derived": derived,
            "options": dict(options or {}),
            "mm1_version": mm1.__version__,
            "splits": {name: _write_split(partial / name, documents) for name, documents in splits.items()},
        }
        info["skipped"] = skips.as_dict() if skips else {}
        (partial / "corpus.json").write_text(json.dumps(info, indent=2, ensure_ascii=False) + "\n")
        shutil.rmtree(directory, ignore_errors=True)
        partial.rename(directory)
    except OSError as error:
        raise UserError(
            f"{directory}: the corpus could not be written ({error.strerror or error}): free some space or choose "
            "another place with MM1_DATA"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return info


def _write_split(directory: Path, documents: Iterable[Document]) -> dict[str, Any]:
    directory.mkdir(parents=True)
    digest = hashlib.blake2b(digest_size=16)
    kinds: Counter[str] = Counter()
    images = characters = 0
    seen: set[str] = set()
    with ArrowWriter(
        features=FEATURES, path=str(directory / "00000.arrow"), writer_batch_size=_ROWS_PER_BATCH
    ) as writer:
        for document in documents:
            if document.id in seen:
                raise UserError(f"{directory}: two documents have the id '{document.id}': ids must differ")
            if document.kind not in KINDS:
                raise UserError(f"document '{document.id}': kind '{document.kind}' is none of {', '.join(KINDS)}")
            seen.add(document.id)
            row = to_row(document)
            writer.write(row)
            digest.update(repr(row).encode())
            kinds[document.kind] += 1
            images += len(document.images)
            characters += len(document.text)
        writer.finalize()
    return {
        "documents": len(seen),
        "images": images,
        "characters": characters,
        "kinds": dict(kinds),
        "content_hash": digest.hexdigest(),
    }
