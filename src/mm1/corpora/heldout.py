"""Chooses the held-out part of a corpus by a stable hash, independent of order."""

from __future__ import annotations

import hashlib

from mm1.errors import UserError


def check_share(heldout: float) -> None:
    """Check a share of held-out documents.

    Raises:
        UserError: If it isn't from 0 to below 1.
    """
    if not 0 <= heldout < 1:
        raise UserError(f"option heldout must be a share from 0 to below 1 (given: {heldout})")


def is_held_out(share: float, *keys: object) -> bool:
    """Return whether the document that the keys (`seed`, `"grimm-tales"`, ...) identify is held out."""
    digest = hashlib.blake2b("/".join(map(str, keys)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64
