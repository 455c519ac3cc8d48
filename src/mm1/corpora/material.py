"""The result of a corpus builder: the documents of each split and their origin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mm1.data.skips import Skips
from mm1.document import Document


@dataclass(frozen=True)
class Material:
    """The content of a corpus before it is written.

    Attributes:
        splits: The documents of each split; generators are consumed in this order.
        licence: The licence of the material.
        sources: Packages and files that the material comes from.
        derived: One or two sentences with the rule, if documents are made from the sources by a rule.
        skips: Counts of what is left out; complete when all splits are consumed.
        changed: Counts of what is corrected; complete when all splits are consumed.
    """

    splits: Mapping[str, Iterable[Document]]
    licence: str
    sources: list[str]
    derived: str | None = None
    skips: Skips = field(default_factory=Skips)
    changed: Skips = field(default_factory=Skips)
