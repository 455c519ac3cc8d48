"""The world that the corpus shows: what there is in training, what is held out, and how scenes are drawn up."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from mm1.corpora.hands.english import word_list
from mm1.corpora.hands.scene import (
    LARGE,
    QUARTERS,
    SMALL,
    SMALLEST,
    Box,
    Card,
    Group,
    Layout,
    Scene,
    most_of_side,
    place,
    size_word,
)
from mm1.corpora.hands.things import Thing

HANDS = ("noto", "twemoji", "fluent", "openmoji")
"""The hands of training."""
NEW_HAND = "emojione"
"""The hand that is held out."""
MOST_THINGS = 16
_CLUTTER_AROUND_SMALL = 24

CARD_WORDS = word_list(
    "stop open shut left right home milk bread salt sugar water soup rice meat lunch salad gold iron wood stone sand "
    "snow rain wind storm north south east west day night hour week month year red blue green black white pink gray "
    "fast slow hot cold new old big free sale bank shop park city road lake hill moon sun star love hello thank yes no"
)
"""What cards say."""

_LAYOUTS: tuple[tuple[Layout, float], ...] = (
    ("alone", 0.5),
    ("group", 0.14),
    ("left-right", 0.1),
    ("top-bottom", 0.1),
    ("quarters", 0.05),
    ("mixed", 0.06),
    ("card", 0.05),
)

_SIZES_ALONE = ((SMALLEST, SMALL), (SMALL, 0.6), (0.6, 1.0))
"""Sides of single things, as shares of the picture's."""


@dataclass(frozen=True)
class World:
    """What there is.

    Attributes:
        things: The things of training.
        new_things: The things whose names are held out.
        side: Of the pictures, in pixels.
        seed: The seed of everything.
        hands: The hands of training.
        new_hand: The hand that is held out.
    """

    things: Sequence[Thing]
    new_things: Sequence[Thing]
    side: int
    seed: int
    hands: Sequence[str] = field(default=HANDS)
    new_hand: str = NEW_HAND

    def thing(self, draw: random.Random, *, but: Sequence[Thing] = ()) -> Thing:
        """Return a random thing of training that isn't one of some others."""
        while True:
            thing = draw.choice(self.things)
            if thing not in but:
                return thing

    def hand(self, draw: random.Random) -> str:
        """Return a random hand of training."""
        return draw.choice(self.hands)

    @property
    def page(self) -> Box:
        """The whole picture, in pixels."""
        return (0, 0, self.side, self.side)

    def alone(
        self,
        thing: Thing,
        hand: str,
        draw: random.Random,
        *,
        least: float = SMALLEST,
        most: float = 1.0,
        clutter: int = 0,
    ) -> Scene:
        """Return a scene of one thing, of a size between two shares of the picture's side."""
        share = draw.uniform(least, most)
        ((box,),) = place([1], [share], self.page, self.side, draw)
        return Scene("alone", (Group(thing, hand, (box,), size_word(box[2] / self.side)),), self.side, clutter=clutter)

    def small(self, thing: Thing, hand: str, draw: random.Random, *, most: float = SMALLEST) -> Scene:
        """Return a scene of one small thing among faint shapes, for which a picture needs resolution."""
        return self.alone(thing, hand, draw, most=most, clutter=_CLUTTER_AROUND_SMALL)

    def scene(self, draw: random.Random, *, layout: Layout | None = None, first: Thing | None = None) -> Scene:
        """Return a random scene by the hands of training.

        Args:
            draw: The choices.
            layout: The layout; default: any.
            first: The thing of the first group; default: any.
        """
        layout = layout or draw.choices([name for name, _ in _LAYOUTS], [share for _, share in _LAYOUTS])[0]
        clutter = draw.choice((0, 0, 0, 4, 8))
        thing = first or self.thing(draw)
        if layout == "alone":
            least, most = draw.choices(_SIZES_ALONE, (0.15, 0.35, 0.5))[0]
            return self.alone(thing, self.hand(draw), draw, least=least, most=most, clutter=clutter)
        if layout == "group":
            count = draw.randint(2, 5) if draw.random() < 0.7 else draw.randint(6, MOST_THINGS)
            return Scene(layout, self._groups([thing], [count], draw), self.side, clutter=clutter)
        if layout in ("left-right", "top-bottom"):
            return self._halves(layout, thing, clutter, draw)
        if layout == "quarters":
            return self._quarters(thing, clutter, draw)
        if layout == "card":
            return self._with_card(thing, clutter, draw)
        things = self._different(thing, draw.randint(2, 4), draw)
        counts = [1 for _ in things]
        for _ in range(draw.randint(1, 8 - len(things))):
            counts[draw.randrange(len(counts))] += 1
        return Scene("mixed", self._groups(things, counts, draw), self.side, clutter=clutter)

    def _different(self, first: Thing, count: int, draw: random.Random) -> list[Thing]:
        things = [first]
        while len(things) < count:
            things.append(self.thing(draw, but=things))
        return things

    def _groups(self, things: Sequence[Thing], counts: Sequence[int], draw: random.Random) -> tuple[Group, ...]:
        most = most_of_side(sum(counts), self.page, self.side)
        shares = [draw.uniform(max(SMALLEST, 0.6 * most), most) for _ in things]
        boxes = place(counts, shares, self.page, self.side, draw)
        return tuple(Group(thing, self.hand(draw), tuple(of)) for thing, of in zip(things, boxes, strict=True))

    def _in_region(self, thing: Thing, count: int, region: Box, draw: random.Random) -> Group:
        most = most_of_side(count, region, self.side)
        share = draw.uniform(SMALLEST, most)
        if count == 1 and draw.random() < 0.6:  # a size that has a word
            share = draw.uniform(SMALLEST, SMALL) if draw.random() < 0.5 else max(most, LARGE)
        (boxes,) = place([count], [share], region, self.side, draw)
        size = size_word(boxes[0][2] / self.side) if count == 1 and draw.random() < 0.7 else None
        return Group(thing, self.hand(draw), tuple(boxes), size)

    def _halves(self, layout: Layout, thing: Thing, clutter: int, draw: random.Random) -> Scene:
        half, side = self.side // 2, self.side
        beside = layout == "left-right"
        regions = ((0, 0, half, side), (half, 0, half, side)) if beside else ((0, 0, side, half), (0, half, side, half))
        groups = []
        for one, region in zip(self._different(thing, 2, draw), regions, strict=True):
            count = 1 if draw.random() < 0.6 else draw.randint(2, 4)
            # The middle band, so that what is beside isn't above too.
            left, top, width, height = region
            band = (left, side // 4, width, half) if beside else (side // 4, top, half, height)
            groups.append(self._in_region(one, count, band if count == 1 else region, draw))
        return Scene(layout, tuple(groups), side, clutter=clutter)

    def _quarters(self, thing: Thing, clutter: int, draw: random.Random) -> Scene:
        half = self.side // 2
        things = self._different(thing, draw.randint(2, 4), draw)
        places = sorted(draw.sample(range(len(QUARTERS)), len(things)))
        groups = [
            self._in_region(one, 1, (at % 2 * half, at // 2 * half, half, half), draw)
            for one, at in zip(things, places, strict=True)
        ]
        names = tuple(QUARTERS[at] for at in places)
        return Scene("quarters", tuple(groups), self.side, clutter=clutter, places=names)

    def _with_card(self, thing: Thing, clutter: int, draw: random.Random) -> Scene:
        side, half, is_first = self.side, self.side // 2, draw.random() < 0.5
        width, height = (
            draw.randint(round(0.7 * side), round(0.95 * side)),
            draw.randint(round(0.28 * side), round(0.4 * side)),
        )
        top = draw.randint(0, half - height) + (0 if is_first else half)
        card = Card(draw.choice(CARD_WORDS), (draw.randint(0, side - width), top, width, height))
        region = (side // 4, half if is_first else 0, half, half)
        return Scene("card", (self._in_region(thing, 1, region, draw),), side, card, clutter)
