"""MinHash (Broder, 1997): the similarity of two sets from signatures of a fixed length, and which pairs to compare."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import xxhash

from mm1.clean.text import UNSPACED

_TOKENS = re.compile(f"[{UNSPACED}]|[^\\W{UNSPACED}]+")
_SHINGLES_AT_ONCE = 4096


def token_hashes(text: str) -> np.ndarray:
    """Return a hash of every word (every character, in scripts without spaces); case doesn't count.

    Returns:
        (words,) uint64.
    """
    words = _TOKENS.findall(text.casefold())
    return np.fromiter((xxhash.xxh3_64_intdigest(word.encode()) for word in words), np.uint64, len(words))


def ngram_hashes(tokens: np.ndarray, n: int) -> np.ndarray:
    """Return a hash of every n-gram.

    Args:
        tokens: (words,) uint64, from `token_hashes`.
        n: Words per n-gram.

    Returns:
        (max(0, words - n + 1),) uint64.
    """
    count = max(0, len(tokens) - n + 1)
    hashes = np.zeros(count, np.uint64)
    for offset in range(n):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + tokens[offset : offset + count]
    # Mix again, so that every bit depends on every word (the finalizer of MurmurHash3).
    hashes ^= hashes >> np.uint64(33)
    hashes *= np.uint64(0xFF51AFD7ED558CCD)
    return hashes ^ (hashes >> np.uint64(33))


def signature(hashes: np.ndarray, length: int) -> np.ndarray:
    """Return the MinHash signature of a set of hashes.

    The share of positions in which two signatures agree estimates the sets' Jaccard similarity, with a standard error
    of at most 0.5 / sqrt(length).

    Args:
        hashes: (n,) uint64, n >= 1.
        length: Length of the signature.

    Returns:
        (length,) uint32.
    """
    factors, shifts = _family(length)
    least = np.full(length, np.iinfo(np.uint64).max, np.uint64)
    for start in range(0, len(hashes), _SHINGLES_AT_ONCE):
        chunk = hashes[start : start + _SHINGLES_AT_ONCE, None]
        # Multiply-shift hashing (Dietzfelbinger et al., 1997): the upper half of a * x + b modulo 2**64.
        np.minimum(least, (chunk * factors + shifts).min(axis=0), out=least)
    return (least >> np.uint64(32)).astype(np.uint32)


@cache
def _family(length: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(1)
    factors = draw.integers(0, 2**63, length, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return factors, draw.integers(0, 2**63, length, dtype=np.uint64)


@cache
def bands_for(threshold: float, length: int) -> tuple[int, int]:
    """Return the numbers of bands and of rows per band into which signatures are cut to find similar pairs.

    Two signatures are compared if they agree in a whole band; for sets of similarity s the probability of this is
    1 - (1 - s**rows)**bands. The choice minimises the pairs compared below the threshold and the pairs missed above it.
    A missed pair weighs ten times as much, since compared pairs are checked (Leskovec et al., Mining of Massive
    Datasets, section 3.4).
    """
    similarity = np.linspace(0, 1, 201)
    best: tuple[float, int, int] | None = None
    for rows in range(1, length + 1):
        bands = length // rows
        found = 1 - (1 - similarity**rows) ** bands
        cost = found[similarity < threshold].sum() + 10 * (1 - found[similarity >= threshold]).sum()
        if best is None or cost < best[0]:
            best = (float(cost), bands, rows)
    assert best is not None
    return best[1], best[2]


def band_keys(signature_: np.ndarray, bands: int, rows: int) -> list[int]:
    """Return one 64-bit key for every band of a signature; bands at different positions have different keys."""
    return [xxhash.xxh3_64_intdigest(signature_[b * rows : (b + 1) * rows].tobytes(), seed=b) for b in range(bands)]
