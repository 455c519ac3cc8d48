"""The sources of a plan: splits of corpora with their weights."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace

import numpy as np

from mm1.data.corpus import Split, open_split
from mm1.data.schema import source_path
from mm1.document import Kind
from mm1.errors import UserError
from mm1.plan.conversations import fit_conversations
from mm1.plan.index import index_folder
from mm1.plan.lengths import Index
from mm1.processing.processor import MM1Processor
from mm1.recipe import DataRecipe, EncoderRecipe, Recipe

_FITTED_VERSION = 1  # of the rule and of the files of fitted conversations


@dataclass(frozen=True)
class Place:
    """Where the documents of a source are read.

    Attributes:
        directory: The split's directory.
        located_in: The folder of the source files that a corpus by reference reads; None: all is in the directory.
        bytes_of_document: What a document takes on average, on disk.
    """

    directory: str
    located_in: str | None
    bytes_of_document: float

    @classmethod
    def of(cls, split: Split) -> Place:
        """Return the place of a split."""
        directory = split.directory.absolute()
        with os.scandir(directory) as entries:
            stored = sum(entry.stat().st_size for entry in entries if entry.name.endswith(".arrow"))
        info = split.corpus["splits"][split.directory.name]  # of all documents, also those that a mask leaves out
        located = info.get("located", {})
        files = [source_path(file, directory.parent) for file in located.get("files", ())]
        folder = os.path.commonpath([os.path.dirname(file) for file in files]) if files else None
        size = (stored + located.get("bytes", 0)) / max(1, info["documents"])
        return cls(str(directory), folder, size)


@dataclass(frozen=True)
class Source:
    """A split with the values that a plan needs.

    Attributes:
        name: `corpus/split` as the recipe names it.
        kind: The kind under which the recipe lists it.
        weight: Weight among the sources of that kind.
        content_hash: Hash of the documents.
        index: The lengths of parts.
        documents: (n,) rows to draw from; None: all.
        place: Where the documents are read; None: unknown.
        warnings: Sentences for the user.
    """

    name: str
    kind: Kind
    weight: float
    content_hash: str
    index: Index
    documents: np.ndarray | None = None
    place: Place | None = None
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.index) if self.documents is None else len(self.documents)


@dataclass
class Totals:
    """The amounts that a plan takes from one source."""

    sequences: int = 0
    documents: int = 0
    tokens: int = 0
    target_tokens: int = 0
    images: int = 0


def plan_sources(recipe: Recipe | EncoderRecipe, splits: dict[str, Split], indexes: dict[str, Index]) -> list[Source]:
    """Return the sources of all kinds with a weight, in the recipe's order.

    Args:
        recipe: Gives the mixture.
        splits: The result of `open_splits`.
        indexes: The splits' indexes, by name.
    """
    return [
        Source(
            s.corpus,
            kind,
            s.weight,
            splits[s.corpus].content_hash,
            indexes[s.corpus],
            place=Place.of(splits[s.corpus]),
        )
        for kind, mix in recipe.data.mixture.items()
        if mix.weight > 0
        for s in mix.sources
    ]


def open_splits(recipe: Recipe | EncoderRecipe) -> dict[str, Split]:
    """Open the splits of all kinds with a weight, in the recipe's order.

    Raises:
        UserError: If a split is missing or listed twice.
    """
    names = [s.corpus for mix in recipe.data.mixture.values() if mix.weight > 0 for s in mix.sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"data.mixture: '{twice[0]}' is listed twice: list it once, with one weight")
    return {name: open_split(name) for name in names}


def fit_source(source: Source, split: Split, processor: MM1Processor, data: DataRecipe) -> Source:
    """Return a source whose conversations fit a sequence each; its warnings name shortened and left out ones.

    Raises:
        UserError: If the chat template can lay out none of its conversations.
    """
    if source.index.chat is None:
        return source
    unusable = {reason: np.array(rows) for reason, rows in source.index.unusable.items()}
    if unusable and sum(map(len, unusable.values())) == int(source.index.chat.sum()):
        reason, rows = max(unusable.items(), key=lambda item: len(item[1]))
        raise UserError(
            f"{source.name}: the chat template can lay out no conversation (document '{split[int(rows[0])].id}': "
            f"{reason}): use another template, or build the split again"
        )
    limits_of_kind = processor.tokens_per_image, data.sequence_length, data.max_images(source.kind)
    key = [*limits_of_kind, *([processor.image_size, processor.rule] if processor.rule.cuts else [])]
    name = hashlib.blake2b(" ".join(map(str, key)).encode(), digest_size=8).hexdigest()
    folder = index_folder(split, processor.tokenizer, processor.chat_layout) / f"fitted-{name}-{_FITTED_VERSION}"
    fitted = fit_conversations(source.index, *limits_of_kind, folder)
    limits = f"a sequence ({data.sequence_length:,} tokens, {data.max_images(source.kind)} images)"
    effects = [
        (fitted.shortened, f"are longer than {limits} and end after the last answer that fits"),
        (fitted.left_out, f"are left out, since their first answer does not fit {limits}"),
        *((rows, f"are left out, since they can't be laid out: {reason}") for reason, rows in unusable.items()),
    ]
    warnings = [
        f"{source.name}: {len(rows):,} of {len(split):,} conversations {effect}, for example "
        + ", ".join(f"'{split[int(row)].id}'" for row in rows[:3])
        for rows, effect in effects
        if len(rows)
    ]
    return replace(source, index=fitted.index, documents=fitted.documents, warnings=tuple(warnings))
