"""Pictures without what is not the picture: comments, colour profiles and EXIF data never decide whether one is read.

Pillow reads them with the header, and gives the whole picture up where one is damaged, or larger than its limits.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from PIL import Image as PILImage

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_WEBP_PIXELS = re.compile(b"VP8[ L]|ALPH|ANIM|ANMF")
_WEBP_METADATA_FLAGS = 0x20 | 0x08 | 0x04  # of VP8X: colour profile, EXIF, XMP
_EXIF = b"Exif\0\0"
# Tags of TIFF that pixels need: how many, of which bits and colours, where they are and how packed, which way up.
_TIFF_PIXELS = {
    254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332, 338,
    339, 347, 512, 513, 514, 515, 519, 520, 521, 529, 530, 531, 532,
}  # fmt: skip

_TIFF_BITS, _TIFF_VALUES, _TIFF_NUMBERS = 258, 277, 339
_NUMBERS = {1: "whole numbers", 2: "signed numbers", 3: "floats"}


def without_metadata(data: bytes) -> bytes:
    """Return a PNG, JPEG, WebP or TIFF without metadata but EXIF that can be read; other bytes as they are."""
    try:
        if data.startswith(_PNG):
            return _PNG + b"".join(_png_chunks(data))
        if data.startswith(b"\xff\xd8"):
            return _jpeg(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            body = b"WEBP" + b"".join(_webp_chunks(data))
            return b"RIFF" + struct.pack("<I", len(body)) + body
        if data[:4] in (b"II*\0", b"MM\0*"):
            return _tiff(data, "<" if data[:1] == b"I" else ">")
    except (struct.error, IndexError):  # cut off before the pixels
        pass
    return data


def png_exif(data: bytes) -> bytes:
    """Return the EXIF data of a PNG, which may stand behind the pixels; empty if there is none."""
    place = len(_PNG)
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        if data[place + 4 : place + 8] == b"eXIf":
            return data[place + 8 : place + 8 + length]
        place += 12 + length
    return b""


def tiff_pixels(data: bytes) -> tuple[int, int, str] | None:
    """Return what the pixels of a TIFF's first picture are; None if it is none, or damaged before they are told.

    Returns:
        Values of a pixel, bits of a value, and what these are: `whole numbers`, `signed numbers`, `floats`, or `other
        numbers`.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return None
    told = {_TIFF_BITS: 1, _TIFF_VALUES: 1, _TIFF_NUMBERS: 1}
    try:
        (place,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, place)
        for at in range(place + 2, place + 2 + 12 * count, 12):
            tag, kind, length = struct.unpack_from(f"{order}HHI", data, at)
            if tag in told and kind == 3 and length:  # 16-bit numbers; the first of them counts
                (behind,) = struct.unpack_from(f"{order}I", data, at + 8)
                (told[tag],) = struct.unpack_from(f"{order}H", data, at + 8 if length <= 2 else behind)
    except struct.error:
        return None
    return told[_TIFF_VALUES], told[_TIFF_BITS], _NUMBERS.get(told[_TIFF_NUMBERS], "other numbers")


def _png_chunks(data: bytes) -> Iterator[bytes]:
    place = len(_PNG)
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, end = data[place + 4 : place + 8], place + 12 + length
        if kind == b"eXIf":
            content = data[place + 8 : end - 4]
            if _is_exif(content):
                yield struct.pack(">I", length) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        elif kind in _PNG_PIXELS:
            yield data[place:end]
        place = end
    yield data[place:]  # cut off: the pixels so far count


def _jpeg(data: bytes) -> bytes:
    kept, place = [data[:2]], 2
    while True:
        if data[place] != 0xFF:
            return data
        marker = data[place + 1]
        if marker == 0xFF:  # fill
            place += 1
            continue
        if marker == 0xDA:  # the pixels
            return b"".join([*kept, data[place:]])
        end = place + 2 + struct.unpack_from(">H", data, place + 2)[0]
        if _is_of_the_picture(marker, data[place + 4 : end]):
            kept.append(data[place:end])
        place = end


def _is_of_the_picture(marker: int, content: bytes) -> bool:
    match marker:
        case 0xE0:  # JFIF and Adobe's tell the colours
            return len(content) >= 14
        case 0xEE:
            return len(content) >= 12
        case 0xE1:
            return content.startswith(_EXIF) and _is_exif(content[len(_EXIF) :])
    return marker not in (0xFE, *range(0xE0, 0xF0))


def _webp_chunks(data: bytes) -> Iterator[bytes]:
    place = 12
    while place + 8 <= len(data):
        kind, (length,) = data[place : place + 4], struct.unpack_from("<I", data, place + 4)
        end = place + 8 + length + length % 2
        if kind == b"VP8X":
            yield data[place : place + 8] + bytes([data[place + 8] & ~_WEBP_METADATA_FLAGS]) + data[place + 9 : end]
        elif _WEBP_PIXELS.match(kind):
            yield data[place:end]
        elif end > len(data):  # a length that is wrong: the pixels are found by their name, if they come after it
            found = _WEBP_PIXELS.search(data, place + 8)
            end = found.start() if found else end
        place = end


def _tiff(data: bytes, order: str) -> bytes:
    """Return a TIFF with another directory of its first picture, behind everything else."""
    (place,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, place)
    entries = [data[at : at + 12] for at in range(place + 2, place + 2 + 12 * count, 12)]
    kept = [entry for entry in entries if struct.unpack_from(f"{order}H", entry)[0] in _TIFF_PIXELS]
    if len(kept) == len(entries):
        return data
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + bytes(4)
    return data[:4] + struct.pack(f"{order}I", len(data)) + data[8:] + directory


def _is_exif(content: bytes) -> bool:
    try:
        exif = PILImage.Exif()
        exif.load(content)
        exif.tobytes()
    except Exception:  # it raises nearly anything on damaged input
        return False
    return True
