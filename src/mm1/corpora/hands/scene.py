"""What a picture shows: groups of things, where they are, perhaps a card with a word. No drawing happens here."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any, Literal

from mm1.corpora.hands.english import with_article
from mm1.corpora.hands.things import Thing

Layout = Literal["alone", "group", "left-right", "top-bottom", "quarters", "mixed", "card"]
Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""

QUARTERS = ("top left", "top right", "bottom left", "bottom right")
SMALLEST = 1 / 8
"""The smallest side of a thing, as a share of the picture's."""
LARGE, SMALL = 0.36, 0.22
"""From and up to which share of the picture's side a thing is called large or small."""
_GAP = 1  # pixels between things
_TRIES = 60


@dataclass(frozen=True, slots=True)
class Group:
    """Equal things by one hand.

    Attributes:
        thing: The thing.
        hand: Who draws it.
        boxes: The square that each fills with its longer side, in pixels.
        size: `large` or `small`, if the text may say so.
    """

    thing: Thing
    hand: str
    boxes: tuple[Box, ...]
    size: Literal["large", "small"] | None = None

    @property
    def count(self) -> int:
        """The number of things."""
        return len(self.boxes)

    @property
    def phrase(self) -> str:
        """The group as text: `a small fox` or `two foxes`."""
        if self.count > 1:
            return self.thing.counted(self.count)
        return with_article(f"{self.size} {self.thing.name}" if self.size else self.thing.name)

    @property
    def name(self) -> str:
        """The name in singular or plural."""
        return self.thing.name if self.count == 1 else self.thing.plural


@dataclass(frozen=True, slots=True)
class Card:
    """A card with a word.

    Attributes:
        word: The word.
        box: Where the card is, in pixels.
    """

    word: str
    box: Box


@dataclass(frozen=True, slots=True)
class Scene:
    """The content of a picture.

    Attributes:
        layout: How the groups are arranged.
        groups: In reading order: left before right, top before bottom.
        side: Of the picture, in pixels.
        card: A card, in the layout `card`: above its group or, if `card_first` is false, below it.
        clutter: Number of faint shapes behind the things.
        places: With the layout `quarters`: the quarter of every group.
    """

    layout: Layout
    groups: tuple[Group, ...]
    side: int
    card: Card | None = None
    clutter: int = 0
    places: tuple[str, ...] = ()

    @property
    def card_first(self) -> bool:
        """Whether the card is above its group."""
        return self.card is not None and self.card.box[1] < self.side // 2

    def meta(self) -> dict[str, Any]:
        """Return the scene as JSON values, for a document's meta."""
        return {
            "layout": self.layout,
            "side": self.side,
            "groups": [
                {
                    "thing": group.thing.name,
                    "kind": group.thing.kind,
                    "hand": group.hand,
                    "count": group.count,
                    "size": group.size,
                    "boxes": [list(box) for box in group.boxes],
                }
                for group in self.groups
            ],
            "places": list(self.places),
            "card": self.card.word if self.card else None,
        }


def place(
    counts: Sequence[int], shares: Sequence[float], region: Box, side: int, draw: random.Random
) -> list[list[Box]]:
    """Return squares for groups of things that don't overlap, within a region of a picture.

    Args:
        counts: The number of things of each group.
        shares: The side of each group's things, as a share of the picture's side. All are made smaller, down to
            `SMALLEST`, if they don't fit.
        region: Where they may be, in pixels.
        side: Of the picture, in pixels.
        draw: Where exactly they are.
    """
    smallest, shares = ceil(SMALLEST * side), list(shares)
    while True:
        sides = [max(smallest, min(round(share * side), *region[2:])) for share in shares]
        boxes = _scattered(counts, sides, region, draw)
        if boxes is not None:
            return boxes
        if max(sides) == smallest:
            return _in_rows(counts, smallest, region)
        shares = [0.85 * share for share in shares]


def _scattered(counts: Sequence[int], sides: Sequence[int], region: Box, draw: random.Random) -> list[list[Box]] | None:
    """Return random squares; None if a free place for one isn't found."""
    left, top, width, height = region
    boxes: list[list[Box]] = [[] for _ in counts]
    taken: list[Box] = []
    for group in sorted(range(len(counts)), key=lambda group: -sides[group]):
        side = sides[group]
        for _ in range(counts[group]):
            for _ in range(_TRIES):
                box = (left + draw.randint(0, width - side), top + draw.randint(0, height - side), side, side)
                if not any(overlap(box, other, _GAP) for other in taken):
                    break
            else:
                return None
            taken.append(box)
            boxes[group].append(box)
    return boxes


def _in_rows(counts: Sequence[int], side: int, region: Box) -> list[list[Box]]:
    left, top, width, _ = region
    columns = width // side
    cells = iter((left + n % columns * side, top + n // columns * side, side, side) for n in range(sum(counts)))
    return [[next(cells) for _ in range(count)] for count in counts]


def overlap(one: Box, other: Box, gap: int = 0) -> bool:
    """Return whether two boxes overlap, or are closer than `gap` pixels."""
    return all(
        one[axis] < other[axis] + other[axis + 2] + gap and other[axis] < one[axis] + one[axis + 2] + gap
        for axis in (0, 1)
    )


def most_of_side(count: int, region: Box, side: int) -> float:
    """Return the largest share of the picture's side that so many things may have to fit well into a region."""
    per_row = ceil(sqrt(count))
    return max(SMALLEST, 0.85 * min(region[2], region[3] if count > 1 else region[2]) / per_row / side)


def size_word(share: float) -> Literal["large", "small"] | None:
    """Return what a thing of a share of the picture's side is called."""
    return "large" if share >= LARGE else "small" if share <= SMALL else None


def cover(boxes: Sequence[Box]) -> Box:
    """Return the box around boxes."""
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[0] + box[2] for box in boxes), max(box[1] + box[3] for box in boxes)
    return (left, top, right - left, bottom - top)
