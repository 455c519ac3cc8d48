"""A look at the captions of an encoder's corpora before training."""

from __future__ import annotations

import numpy as np
import xxhash

from mm1.data.corpus import Split
from mm1.errors import UserError
from mm1.progress import console

LOOKED_AT = 1_000_000
"""Captions of a split, the first ones, that are looked at; of each 8 bytes are kept."""


def check_captions(splits: dict[str, Split]) -> None:
    """Print the number of different captions, and raise an error if all are the same.

    Args:
        splits: The opened splits, by name.

    Raises:
        UserError: If all captions of all splits are the same.
    """
    first: str | None = None
    alike = True
    for name, split in splits.items():
        looked_at = min(len(split), LOOKED_AT)
        hashes = [np.zeros(0, np.uint64)]
        for batch in split.batches(0, looked_at):
            texts = batch.column("parts").flatten().field("text").drop_null().to_pylist()
            hashes.append(np.array([xxhash.xxh3_64_intdigest(text.encode()) for text in texts], dtype=np.uint64))
            first = texts[0] if first is None and texts else first
            alike = alike and all(text == first for text in texts)
        counts = np.unique(np.concatenate(hashes), return_counts=True)[1]
        among = "" if looked_at == len(split) else f" among the first {looked_at:,}"
        share = counts.max(initial=0) / looked_at
        console.print(
            f"{name}: {len(counts):,} different captions{among}; {share:.1%} of the pictures have the commonest one"
        )
    if alike and first is not None:
        raise UserError(
            f"{', '.join(splits)}: all captions are the same ('{first.strip()[:60]}'), so a contrastive loss can't "
            "learn from them: use captions that describe the pictures, or set objective.kind: aim"
        )
