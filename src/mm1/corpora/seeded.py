"""Random choices that depend only on named keys, not on the order in which they are made."""

from __future__ import annotations

import random


def seeded(*keys: object) -> random.Random:
    """Return a random generator for keys such as `(seed, "train", 17)`; equal keys give equal draws."""
    return random.Random("/".join(map(str, keys)))  # noqa: S311 - not for secrets
