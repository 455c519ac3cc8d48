"""Prepares drawings and pictures for a corpus: renders SVG, puts transparency on white, limits the size."""

from __future__ import annotations

import io

import resvg_py
from PIL import Image as Pillow
from PIL import ImageChops

from mm1.errors import UserError
from mm1.processing.images import decode_image, to_rgb

SMALLEST, LARGEST = 16, 1024  # allowed pixels of the longer side
_OVERVIEW = 64  # pixels of the small rendering that finds the drawing on its page
_CLOSEST = 4  # largest factor by which a drawing is enlarged to fill its picture


class BlankError(ValueError):
    """A drawing shows nothing."""


def check_size(size: int) -> None:
    """Check the size of pictures.

    Raises:
        UserError: If it isn't from `SMALLEST` to `LARGEST` pixels.
    """
    if not SMALLEST <= size <= LARGEST:
        raise UserError(f"size must be from {SMALLEST} to {LARGEST} pixels (given: {size})")


def render(svg: str, size: int) -> Pillow.Image:
    """Return a drawing rendered as large as fits into `size` x `size` pixels (RGBA). Text isn't drawn (no fonts).

    Raises:
        ValueError: If the SVG can't be rendered.
    """
    # Without `dpi`, sizes in pt and mm count as zero.
    drawn = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, dpi=96, skip_system_fonts=True)
    return Pillow.open(io.BytesIO(drawn)).convert("RGBA")


def render_cut(svg: str, size: int) -> Pillow.Image:
    """Return the drawing on an SVG's page, without the empty space around it, on white (RGB).

    Args:
        svg: The SVG.
        size: Most pixels of the longer side.

    Raises:
        UserError: If the renderer isn't installed.
        BlankError: If the drawing shows nothing on white.
        ValueError: If the SVG can't be rendered.
    """
    # A small rendering finds the drawing on its page, so that it is rendered large only once.
    box = render(svg, _OVERVIEW).getchannel("A").getbbox()
    if box is None:
        raise BlankError
    side = max(box[2] - box[0], box[3] - box[1])
    page = render(svg, min(_CLOSEST * size, size * _OVERVIEW // side))
    box = page.getchannel("A").getbbox()
    picture = on_white(page.crop(box))
    picture.thumbnail((size, size))
    if not ImageChops.invert(picture).getbbox():
        raise BlankError
    return picture


def on_white(picture: Pillow.Image) -> Pillow.Image:
    """Return the picture in RGB, with transparent parts on white."""
    return to_rgb(picture)


def png(picture: Pillow.Image) -> bytes:
    """Return the picture encoded as PNG."""
    return _encoded(picture, "PNG")


def bounded(data: bytes, size: int) -> bytes:
    """Return an encoded picture; if its longer side has more than `size` pixels, it is scaled down to them.

    Args:
        data: The encoded picture. A scaled JPEG stays JPEG, other formats become PNG.
        size: Most pixels of the longer side.

    Raises:
        mm1.processing.images.ImageError: If the picture can't be decoded.
    """
    picture = decode_image(data)
    if max(picture.size) <= size:
        return data
    picture.thumbnail((size, size), Pillow.Resampling.LANCZOS)
    was_jpeg = Pillow.open(io.BytesIO(data)).format == "JPEG"
    return _encoded(picture, "JPEG", quality=90) if was_jpeg else png(picture)


def _encoded(picture: Pillow.Image, format_: str, **options: int) -> bytes:
    out = io.BytesIO()
    picture.save(out, format_, **options)
    return out.getvalue()
