"""What a corpus builder hands over: the documents of each split and where they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mm1.data.corpus import Skips
from mm1.document import Document


@dataclass(frozen=True)
class Material:
    """The content of a corpus before it is written.

    Attributes:
        splits: The documents of each split; generators are consumed one after another, in this order.
        licence: The licence of the material, for people to read.
        sources: Packages and files that the material came from.
        derived: If documents were made from the sources by a rule, the rule in a sentence or two.
        skips: What was left out; complete once all splits are consumed.
        changed: What was put right; complete once all splits are consumed.
    """

    splits: Mapping[str, Iterable[Document]]
    licence: str
    sources: list[str]
    derived: str | None = None
    skips: Skips = field(default_factory=Skips)
    changed: Skips = field(default_factory=Skips)
