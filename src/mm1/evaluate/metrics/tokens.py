"""Words of a caption, as the caption metrics count them: lower case, without punctuation."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+(?:['’-]\w+)*")


def caption_tokens(caption: str) -> list[str]:
    """Return the words of a caption in lower case, punctuation left out."""
    return _WORD.findall(caption.lower())
