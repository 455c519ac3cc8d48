"""Synthetic captions: makes a corpus whose captions a model has written.

The paper's mixture has such captions of web pictures, VeCap (sec. 3.3 and appendix), and measures what they contribute.
"""

from __future__ import annotations

import dataclasses
from functools import cache, partial
from pathlib import Path
from typing import Any

from mm1.data.build import build_split
from mm1.data.corpus import Split, open_split
from mm1.data.skips import Skips
from mm1.data.writer import ShardWriter
from mm1.document import Image, Text
from mm1.errors import UserError
from mm1.evaluate.caption import MAX_NEW_TOKENS, STOP, caption_prompt
from mm1.evaluate.models.loading import load_generator
from mm1.evaluate.models.mm1 import MM1Generator
from mm1.evaluate.models.transformers import TransformersGenerator
from mm1.model.resolve import model_hash, resolve_model

PICTURES_AT_ONCE = 512
"""Pictures after which work is saved."""


def recaption(
    reference: str,
    model: Path | str,
    directory: Path,
    *,
    limit: int | None = None,
    workers: int = 1,
    force: bool = False,
) -> dict[str, Any]:
    """Build a copy of a split with a model's greedy captions; an existing copy of the same sources is kept.

    The documents' meta keep the old caption as `original_caption`. An interrupted build resumes.

    Args:
        reference: The split whose pictures are captioned, such as `scenes/train`.
        model: See `mm1.evaluate.models.loading.load_generator`.
        directory: The corpus to write; its other splits stay.
        limit: Number of documents, the first ones; None: all.
        workers: Processes, each with the model; 1: this process only.
        force: Whether to build the split again if it exists.

    Returns:
        The content of `corpus.json`. Documents that are not a captioned picture, pictures that can't be decoded and
        empty captions are left out and counted.

    Raises:
        UserError: If the split or the model doesn't exist, or there is no caption at all.
    """
    split = open_split(reference)
    if directory.resolve() == split.directory.parent.resolve():
        raise UserError(f"{directory}: the pictures come from this corpus: choose another one with --to")
    weights = resolve_model(model, "--model")
    count = min(limit or len(split), len(split))
    job = {
        "format": "captions by a model",
        "patterns": [split.name],
        "source_hash": split.content_hash,
        "model": str(model),
        "model_hash": model_hash(weights),
        "documents": count,
        "max_new_tokens": MAX_NEW_TOKENS,
    }
    work = partial(caption_rows, in_place=directory.absolute()) if "located" in split.info else caption_rows
    return build_split(
        partial(work, split, weights),
        [range(start, min(start + PICTURES_AT_ONCE, count)) for start in range(0, count, PICTURES_AT_ONCE)],
        directory,
        split.directory.name,
        job,
        workers=workers,
        description=f"caption {split.name}",
        force=force,
        licence=split.corpus["licence"],
        derived=f"The captions are synthetic: words of the model {model} for the pictures of {split.name}.",
    )


def caption_rows(split: Split, model: Path, rows: range, file: Path, in_place: Path | None = None) -> dict[str, Any]:
    """Write the documents of a range of rows with a model's captions to an Arrow file, and their digests next to it.

    Returns:
        Counts, and what was left out, by reason.
    """
    generator = _generator(model)
    skips, documents = Skips(), []
    for document in (split[row] for row in rows):
        if document.kind == "caption" and len(document.images) == 1:
            documents.append(document)
        else:
            skips.add("not a captioned picture", document.id)
    prompts = [caption_prompt(generator, document.images[0], document.id) for document in documents]
    captions = generator.generate(prompts, max_new_tokens=MAX_NEW_TOKENS, stop=STOP)
    writer = ShardWriter(file, in_place)
    for document, caption in zip(documents, captions, strict=True):
        if isinstance(caption, UserError):
            skips.add("picture that can't be decoded", document.id)
        elif not caption:
            skips.add("empty caption", document.id)
        else:
            picture: Image = document.images[0]
            meta = {**document.meta, "original_caption": document.text.strip()}
            writer.write(dataclasses.replace(document, parts=(picture, Text(f" {caption}")), meta=meta))
    info = writer.finish()
    file.with_suffix(".digests").write_bytes(writer.digests)
    return {**info, "read": len(rows), "skipped": skips.as_dict()}


@cache
def _generator(model: Path) -> MM1Generator | TransformersGenerator:
    """Load a model once per process."""
    return load_generator(model)
