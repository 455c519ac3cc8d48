"""Cut-out drawings of things at any size, each rendered once per hand and kept."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from PIL import Image as Pillow
from PIL import ImageStat

from mm1.corpora.drawings import BlankError, render

Colour = tuple[int, int, int]
_KEPT_BYTES = 2**28
"""Memory that renderings, and drawings at a size, may take; each of the two."""


class Drawings:
    """The drawings of all hands.

    Args:
        svgs: SVG by hand and name of the drawing.
        side: The largest side that is asked for, in pixels.

    Attributes:
        sprite: Maps hand, name of the drawing and pixels of the longer side to the cut-out drawing (RGBA).
        colour: Maps hand and name of the drawing to the mean colour of its rim, from which the background must differ.
    """

    def __init__(self, svgs: Mapping[tuple[str, str], str], side: int) -> None:
        self._svgs, self._side = svgs, side
        # A rendering has twice the largest side, a usual drawing half of it; a pixel has four bytes.
        self._master = lru_cache(maxsize=max(1, _KEPT_BYTES // (16 * side**2)))(self._render)
        self.sprite = lru_cache(maxsize=max(1, _KEPT_BYTES // side**2))(self._sprite)
        self.colour = lru_cache(maxsize=None)(self._colour)

    def _render(self, hand: str, icon: str) -> Pillow.Image:
        page = render(self._svgs[hand, icon], 2 * self._side)
        # Shadows of almost no opacity would make the drawing smaller than it looks.
        box = page.getchannel("A").point(lambda alpha: 255 * (alpha > 32)).getbbox()
        if box is None:
            raise BlankError(f"{hand}: {icon}")
        return page.crop(box)

    def _sprite(self, hand: str, icon: str, side: int) -> Pillow.Image:
        master = self._master(hand, icon)
        scale = side / max(master.size)
        sides = (max(1, round(master.width * scale)), max(1, round(master.height * scale)))
        return master.resize(sides, Pillow.Resampling.BOX if scale < 0.5 else Pillow.Resampling.BILINEAR)

    def _colour(self, hand: str, icon: str) -> Colour:
        small = self._sprite(hand, icon, 24)
        rim = small.getchannel("A").point(lambda alpha: 255 * (alpha > 128))
        inner = Pillow.new("L", small.size, 0)
        inner.paste(rim.resize((max(1, small.width - 6), max(1, small.height - 6))), (3, 3))
        rim.paste(0, mask=inner)
        mask = rim if rim.getbbox() else small.getchannel("A")
        red, green, blue = ImageStat.Stat(small.convert("RGB"), mask).mean
        return round(red), round(green), round(blue)
