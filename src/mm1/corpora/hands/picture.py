"""Paints scenes: a background, faint clutter, the things, a card."""

from __future__ import annotations

import io
import random
from functools import cache

import numpy as np
from PIL import Image as Pillow
from PIL import ImageChops, ImageDraw, ImageFont

from mm1.corpora.hands.drawings import Colour, Drawings
from mm1.corpora.hands.scene import Card, Scene
from mm1.document import Image

_GROUNDS: tuple[Colour, ...] = (
    (255, 255, 255), (250, 244, 228), (226, 240, 252), (230, 246, 226), (244, 232, 250), (236, 236, 236),
    (255, 236, 220), (196, 222, 240), (204, 226, 190), (214, 200, 178), (60, 72, 96), (70, 84, 66), (88, 70, 92),
)  # fmt: skip
_CONTRAST = 90  # least distance of a drawing's rim from the background, summed over red, green and blue
_NOISES = 8
_QUALITY = 92
_LEAST_FONT = 6  # pixels


class Painter:
    """Paints scenes.

    Args:
        drawings: The drawings of all things.
    """

    def __init__(self, drawings: Drawings) -> None:
        self._drawings = drawings

    def paint(self, scene: Scene, draw: random.Random) -> bytes:
        """Return a picture of a scene, as PNG or JPEG, whichever is smaller."""
        ground = self._ground(scene, draw)
        picture = _background(ground, scene.side, draw)
        _clutter(picture, ground, scene.clutter, draw)
        for group in scene.groups:
            for left, top, side, _ in group.boxes:
                sprite = self._drawings.sprite(group.hand, group.thing.icon, side)
                at = (left + (side - sprite.width) // 2, top + (side - sprite.height) // 2)
                picture.paste(sprite, at, sprite)
        if scene.card is not None:
            _write(picture, scene.card, draw)
        return smaller(picture)

    def image(self, scene: Scene, draw: random.Random) -> Image:
        """Return `paint`'s picture as a part of a document."""
        return Image(self.paint(scene, draw))

    def _ground(self, scene: Scene, draw: random.Random) -> Colour:
        """Return a background from which all things stand out, if there is one."""
        rims = [self._drawings.colour(group.hand, group.thing.icon) for group in scene.groups]

        def contrast(ground: Colour) -> int:
            return min((sum(abs(a - b) for a, b in zip(rim, ground, strict=True)) for rim in rims), default=_CONTRAST)

        grounds = draw.sample(_GROUNDS, len(_GROUNDS))
        return next((ground for ground in grounds if contrast(ground) >= _CONTRAST), max(grounds, key=contrast))


def smaller(picture: Pillow.Image) -> bytes:
    """Return a picture as PNG or as JPEG of high quality, whichever has fewer bytes."""
    files = []
    for format_, options in (("PNG", {"compress_level": 6}), ("JPEG", {"quality": _QUALITY})):
        out = io.BytesIO()
        picture.save(out, format_, **options)
        files.append(out.getvalue())
    return min(files, key=len)


def _background(ground: Colour, side: int, draw: random.Random) -> Pillow.Image:
    style = draw.random()
    if style < 0.5:
        return Pillow.new("RGB", (side, side), ground)
    picture = Pillow.new("RGB", (side, side), ground)
    if style < 0.75:
        picture.paste(_shifted(ground, draw, 24), mask=_slope(side, draw.randrange(4)))
        return picture
    noise = _noise(side, draw.randrange(_NOISES), draw.choice((4, 8, 12)))
    return ImageChops.add(picture, noise, offset=-128)


@cache
def _slope(side: int, turns: int) -> Pillow.Image:
    return Pillow.linear_gradient("L").resize((side, side)).rotate(90 * turns)


@cache
def _noise(side: int, number: int, strength: int) -> Pillow.Image:
    values = np.random.default_rng([side, number, strength]).normal(128, strength, (side, side, 3))
    return Pillow.fromarray(values.clip(0, 255).astype(np.uint8))


def _shifted(colour: Colour, draw: random.Random, most: int) -> Colour:
    red, green, blue = (min(255, max(0, value + draw.randint(-most, most))) for value in colour)
    return red, green, blue


def _clutter(picture: Pillow.Image, ground: Colour, count: int, draw: random.Random) -> None:
    pen, side = ImageDraw.Draw(picture), picture.width
    for _ in range(count):
        x, y, extent = draw.randrange(side), draw.randrange(side), draw.randint(side // 16, side // 5)
        colour = _shifted(ground, draw, 20)
        shape = draw.randrange(3)
        if shape == 0:
            pen.ellipse((x, y, x + extent, y + extent), fill=colour)
        elif shape == 1:
            pen.polygon([(x, y + extent), (x + extent, y + extent), (x + extent // 2, y)], fill=colour)
        else:
            pen.line((x, y, x + extent, y + draw.randint(-extent, extent)), fill=colour, width=max(1, side // 40))


def _write(picture: Pillow.Image, card: Card, draw: random.Random) -> None:
    """Draw a card with its word as large as it fits."""
    left, top, width, height = card.box
    pen = ImageDraw.Draw(picture)
    paper, ink = draw.choice(
        (("#ffffff", "#101010"), ("#fff7c8", "#202060"), ("#203050", "#ffffff"), ("#ffffff", "#a01818"))
    )
    pen.rounded_rectangle(
        (left, top, left + width - 1, top + height - 1), radius=height // 8, fill=paper, outline="#707070"
    )
    fitting = (size for size in range(height, _LEAST_FONT, -1) if _fits(_extent(card.word, size), width, height))
    size = next(fitting, _LEAST_FONT)
    pen.text((left + width / 2, top + height / 2), card.word, fill=ink, font=_font(size), anchor="mm")


def _fits(extent: tuple[float, float], width: int, height: int) -> bool:
    return extent[0] <= 0.9 * width and extent[1] <= 0.85 * height


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    # Pillow brings this font, so the picture doesn't depend on those of the machine.
    return ImageFont.load_default(size)


@cache
def _extent(word: str, size: int) -> tuple[float, float]:
    left, top, right, bottom = _font(size).getbbox(word)
    return right - left, bottom - top
