"""Which part of a corpus is held out: told by a stable hash, not by order or luck."""

from __future__ import annotations

import hashlib

from mm1.errors import UserError


def check_share(heldout: float) -> None:
    """Refuse a share of held-out documents that can't be.

    Raises:
        UserError: If it isn't from 0 to below 1.
    """
    if not 0 <= heldout < 1:
        raise UserError(f"heldout must be a share from 0 to below 1 (given: {heldout})")


def is_held_out(share: float, *keys: object) -> bool:
    """Return whether what the keys name (`seed`, `"grimm-tales"`, ...) belongs to the share that is held out."""
    digest = hashlib.blake2b("/".join(map(str, keys)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64
