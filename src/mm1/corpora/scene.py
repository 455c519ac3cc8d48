"""One scene: its things, caption, questions and picture. `scenes` makes a corpus of many."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal

from PIL import Image as Pillow

from mm1.corpora.sprites import cutout

# Singular noun, plural noun, code point of the openmoji drawing. The drawings are distinguishable at 14 pixels.
THINGS = (
    ("red apple", "red apples", "1F34E"),
    ("green apple", "green apples", "1F34F"),
    ("banana", "bananas", "1F34C"),
    ("carrot", "carrots", "1F955"),
    ("mushroom", "mushrooms", "1F344"),
    ("dog", "dogs", "1F436"),
    ("pig", "pigs", "1F437"),
    ("frog", "frogs", "1F438"),
    ("panda", "pandas", "1F43C"),
    ("elephant", "elephants", "1F418"),
    ("whale", "whales", "1F433"),
    ("turtle", "turtles", "1F422"),
    ("ladybug", "ladybugs", "1F41E"),
    ("penguin", "penguins", "1F427"),
    ("tree", "trees", "1F332"),
    ("star", "stars", "2B50"),
    ("sun", "suns", "2600"),
    ("moon", "moons", "1F319"),
    ("cloud", "clouds", "2601"),
    ("car", "cars", "1F697"),
    ("rocket", "rockets", "1F680"),
    ("house", "houses", "1F3E0"),
    ("ball", "balls", "1F3C0"),
    ("gift", "gifts", "1F381"),
    ("umbrella", "umbrellas", "2602"),
    ("red heart", "red hearts", "2764"),
    ("blue heart", "blue hearts", "1F499"),
    ("yellow heart", "yellow hearts", "1F49B"),
)
CODES = {singular: code for singular, _, code in THINGS}
PLURALS = {singular: plural for singular, plural, _ in THINGS}
NOUNS = tuple(CODES)
NUMBERS = ("one", "two", "three", "four")

Size = Literal["large", "small"]
Layout = Literal["alone", "left-right", "top-bottom"]
Placed = tuple[Pillow.Image, tuple[int, int]]

# Most things in a group: all of them must fit without touching.
_MOST_ALONE = {"large": 4, "small": 4}
_MOST_IN_HALF = {"large": 2, "small": 3}
_SHARE_ALONE = 0.4
# Sides of the drawings, and of the cell reserved for each, as shares of the picture's side.
_SPRITE = {"large": (26 / 64, 28 / 64, 30 / 64), "small": (13 / 64, 14 / 64, 15 / 64)}
_CELL = {"large": 31 / 64, "small": 16 / 64}
_BACKGROUNDS = ("#ffffff", "#ffffff", "#fff6e5", "#e9f4ff", "#eefbea", "#f6eefc", "#f1f1f1")


@dataclass(frozen=True, slots=True)
class Group:
    """Equal things of equal size.

    Attributes:
        noun: Their noun, one of `NOUNS`.
        count: Their number (1 to 4).
        size: The size of the drawings.
    """

    noun: str
    count: int
    size: Size

    @property
    def name(self) -> str:
        """The noun in singular or plural: `red apple` or `red apples`."""
        return self.noun if self.count == 1 else PLURALS[self.noun]

    @property
    def phrase(self) -> str:
        """The group as text: `two large red apples`."""
        return f"{'a' if self.count == 1 else NUMBERS[self.count - 1]} {self.size} {self.name}"


@dataclass(frozen=True, slots=True)
class Scene:
    """The content of a picture.

    Attributes:
        layout: One group anywhere, or two groups side by side or one above the other.
        groups: The groups in reading order: left before right, top before bottom. Their nouns differ.
    """

    layout: Layout
    groups: tuple[Group, ...]

    @property
    def caption(self) -> str:
        """The scene as text, without a leading space."""
        first = self.groups[0].phrase
        if self.layout == "alone":
            return first
        second = self.groups[1].phrase
        return (
            f"{first} above {second}"
            if self.layout == "top-bottom"
            else f"{first} on the left and {second} on the right"
        )

    def meta(self) -> dict[str, Any]:
        """Return the scene as JSON values, for a document's meta."""
        return {"layout": self.layout, "groups": [asdict(group) for group in self.groups]}


def draw_scene(draw: random.Random, seed: int, unseen: bool) -> Scene:
    """Return a random scene, for a held-out split if `unseen` (it has held-out combinations), else for training."""
    while True:
        scene = _draw_any_scene(draw)
        if bool(unseen_combinations(scene, seed)) == unseen:
            return scene


def _draw_any_scene(draw: random.Random) -> Scene:
    if draw.random() < _SHARE_ALONE:
        return Scene("alone", (_draw_group(draw, draw.choice(NOUNS), _MOST_ALONE),))
    layout: Layout = "left-right" if draw.random() < 0.5 else "top-bottom"
    first, second = draw.sample(NOUNS, 2)
    return Scene(layout, (_draw_group(draw, first, _MOST_IN_HALF), _draw_group(draw, second, _MOST_IN_HALF)))


def _draw_group(draw: random.Random, noun: str, most: Mapping[str, int]) -> Group:
    size: Size = "large" if draw.random() < 0.5 else "small"
    return Group(noun, draw.randint(1, most[size]), size)


def unseen_combinations(scene: Scene, seed: int) -> list[str]:
    """Return the combinations in the scene that are held out, which never occur in training.

    A seeded hash holds out one pair of nouns in eight and, for every second noun, one number from two to four. So
    training shows every noun alone, in the plural and in most of its pairs.
    """
    unseen = [
        f"{group.count} {group.name}" for group in scene.groups if _unseen_number(group.noun, seed) == group.count
    ]
    nouns = sorted(group.noun for group in scene.groups)
    if len(nouns) == 2 and _hash(" and ".join(nouns), seed) % 8 == 0:
        unseen.append(" and ".join(nouns))
    return unseen


@cache
def _unseen_number(noun: str, seed: int) -> int | None:
    value = _hash(noun, seed)
    return 2 + value // 2 % 3 if value % 2 else None


@cache
def _hash(key: str, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=8).digest())


def draw_question(scene: Scene, draw: random.Random) -> tuple[str, str]:
    """Return a random question about the scene and its answer."""
    group = draw.choice(scene.groups)
    kind = draw.choice(("number", "place", "size", "presence"))
    if kind == "number":
        return f"How many {PLURALS[group.noun]} are there?", NUMBERS[group.count - 1]
    if kind == "size":
        subject = f"Is the {group.name}" if group.count == 1 else f"Are the {group.name}"
        return f"{subject} large or small?", group.size
    if kind == "presence":
        others = [noun for noun in NOUNS if all(noun != present.noun for present in scene.groups)]
        present = draw.random() < 0.5
        return f"Is there a {group.noun if present else draw.choice(others)}?", "yes" if present else "no"
    first = group is scene.groups[0]
    places: dict[Layout, str] = {
        "alone": "in the picture",
        "left-right": "on the left" if first else "on the right",
        "top-bottom": "at the top" if first else "at the bottom",
    }
    return f"What is {places[scene.layout]}?", group.name


class Painter:
    """Paints scenes at one size; the drawings of all things are rendered once.

    Args:
        svgs: The SVG text of each code point in `CODES` (`sprites.read_svgs`).
        size: Side of the pictures in pixels.
    """

    def __init__(self, svgs: Mapping[str, str], size: int) -> None:
        self.size = size
        self._sprites = {
            (noun, kind): [
                cut.resize(_scaled(cut.size, round(share * size)), Pillow.Resampling.BOX) for share in shares
            ]
            for noun, code in CODES.items()
            for cut in (cutout(svgs[code], 4 * size),)
            for kind, shares in _SPRITE.items()
        }

    def paint(self, scene: Scene, draw: random.Random) -> bytes:
        """Return a picture of the scene as PNG; exact positions and the background are random."""
        picture = Pillow.new("RGB", (self.size, self.size), draw.choice(_BACKGROUNDS))
        placed = self._place(scene, draw)
        # Two diagonal groups fit both layouts, so positions are drawn again until only one fits.
        while scene.layout != "alone" and not _face(
            placed[0], placed[1], axis=1 if scene.layout == "left-right" else 0
        ):
            placed = self._place(scene, draw)
        for sprite, position in (pair for group in placed for pair in group):
            picture.paste(sprite, position, sprite)
        out = io.BytesIO()
        picture.save(out, "PNG")
        return out.getvalue()

    def _place(self, scene: Scene, draw: random.Random) -> list[list[Placed]]:
        """Return each group's sprites with the positions of their top left corners in pixels."""
        placed: list[list[Placed]] = []
        for group, box in zip(scene.groups, self._boxes(scene.layout), strict=True):
            placed.append([])
            for left, top, width, height in self._cells(group, box, draw):
                sprite = draw.choice(self._sprites[group.noun, group.size])
                # A random position in its cell, so that things don't overlap.
                x = left + draw.randint(0, max(0, width - sprite.width))
                y = top + draw.randint(0, max(0, height - sprite.height))
                placed[-1].append((sprite, (x, y)))
        return placed

    def _boxes(self, layout: Layout) -> list[tuple[int, int, int, int]]:
        """Return (left, top, width, height) of each group's region, in pixels."""
        side, half = self.size, self.size // 2
        if layout == "left-right":
            return [(0, 0, half, side), (half, 0, half, side)]
        if layout == "top-bottom":
            return [(0, 0, side, half), (0, half, side, half)]
        return [(0, 0, side, side)]

    def _cells(
        self, group: Group, box: tuple[int, int, int, int], draw: random.Random
    ) -> list[tuple[int, int, int, int]]:
        """Return one cell of the region for each thing of the group."""
        left, top, width, height = box
        side = int(_CELL[group.size] * self.size)
        columns, rows = width // side, height // side
        cells = [(column, row) for row in range(rows) for column in range(columns)]
        return [
            (left + column * width // columns, top + row * height // rows, width // columns, height // rows)
            for column, row in draw.sample(cells, group.count)
        ]


def _face(first: list[Placed], second: list[Placed], axis: int) -> bool:
    """Return whether the extents of two groups along an axis share at least half of the smaller one."""
    (start, end), (other_start, other_end) = (
        (min(at[axis] for _, at in group), max(at[axis] + sprite.size[axis] for sprite, at in group))
        for group in (first, second)
    )
    return 2 * (min(end, other_end) - max(start, other_start)) >= min(end - start, other_end - other_start)


def _scaled(sides: tuple[int, int], longest: int) -> tuple[int, int]:
    scale = longest / max(sides)
    return max(1, round(sides[0] * scale)), max(1, round(sides[1] * scale))
