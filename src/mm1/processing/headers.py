"""Width and height of everyday JPEGs and PNGs from their first bytes, many times as fast as Pillow opens them.

Whatever is not everyday is left to Pillow: nothing is refused here. What is told here Pillow tells too, with or
without the metadata of the picture.
"""

from __future__ import annotations

import zlib

_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_PNG_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""From the colour type of a PNG to the numbers of bits that it may have."""
_PNG_PASSED_OVER = {
    b"gAMA", b"sRGB", b"cHRM", b"iCCP", b"pHYs", b"tEXt", b"zTXt", b"iTXt", b"tIME", b"bKGD", b"sBIT", b"eXIf",
}  # fmt: skip

_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive
_TABLES, _SCAN = 0xDB, 0xDA
_JPEG_PASSED_OVER = {0xC4, 0xDD, 0xFE, *range(0xE0, 0xF0)}


def everyday_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels; None if it takes a closer look to tell them."""
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg_size(data)
        if data.startswith(_PNG):
            return _png_size(data)
    except IndexError:  # cut off
        pass
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    size = None
    place = 2
    while data[place] == 0xFF:
        marker = data[place + 1]
        start, end = place + 4, place + 2 + (data[place + 2] << 8 | data[place + 3])
        if marker in _FRAMES:
            layers = data[start + 5]
            if size or data[start] != 8 or layers not in (1, 3, 4) or end != start + 6 + 3 * layers:
                return None
            size = data[start + 3] << 8 | data[start + 4], data[start + 1] << 8 | data[start + 2]
        elif marker == _TABLES:
            while start < end:
                start += 65 if data[start] < 16 else 129
            if start != end:
                return None
        elif marker == _SCAN:
            return size if start <= end <= len(data) else None
        elif marker not in _JPEG_PASSED_OVER or end < start:
            return None
        place = end
    return None


def _png_size(data: bytes) -> tuple[int, int] | None:
    if not _sum_is_right(data, 12, 29) or data[24] not in _PNG_BITS.get(data[25], ()) or data[27]:
        return None
    place = 33
    while (kind := data[place + 4 : place + 8]) != b"IDAT":
        end = place + 8 + int.from_bytes(data[place : place + 4])
        if kind not in _PNG_PASSED_OVER and not (kind == b"PLTE" and _sum_is_right(data, place + 4, end)):
            return None
        place = end + 4
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


def _sum_is_right(data: bytes, start: int, end: int) -> bool:
    return zlib.crc32(data[start:end]) == int.from_bytes(data[end : end + 4])
