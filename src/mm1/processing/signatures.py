"""What bytes are, known from how they begin, whatever the name says."""

from __future__ import annotations

import codecs
import re

HEAD_BYTES = 4096
"""As many as are looked at."""

# What begins with it: https://en.wikipedia.org/wiki/List_of_file_signatures
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (rb"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (rb"\xff\xd8\xff", "a JPEG picture"),
    (rb"GIF8[79]a", "a GIF picture"),
    (rb"RIFF....WEBP", "a WebP picture"),
    (rb"RIFF....(?:WAVE|AVI )", "a sound or a film (RIFF)"),
    (rb"BM.{4}\0\0\0\0.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", "a BMP picture"),
    (rb"II[*+]\0|MM\0[*+]", "a TIFF picture"),
    (rb"....ftypavi[fs]", "an AVIF picture"),
    (rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)", "a HEIC picture"),
    (rb"....ftyp", "a film (MP4)"),
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a", "a JPEG XL picture"),
    (rb"8BPS", "a Photoshop file"),
    (rb"\xc5\xd0\xd3\xc6|%!PS", "PostScript"),
    (rb"%PDF-", "a PDF"),
    (rb"\{\\rtf", "RTF"),
    (rb"PK\x03\x04|PK\x05\x06", "a zip archive"),
    (rb"Rar!\x1a\x07", "a RAR archive"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (rb"\x1f\x8b", "packed by gzip"),
    (rb"\x1f[\x9d\xa0]", "packed by compress (.Z)"),
    (rb"BZh[1-9]1AY&SY", "packed by bzip2"),
    (rb"\xfd7zXZ\0", "packed by xz"),
    (rb"\x28\xb5\x2f\xfd", "packed by Zstandard"),
    (rb"\x04\x22\x4d\x18", "packed by LZ4"),
    (rb".{257}ustar", "a tar archive"),
    (rb"PAR[1E]", "Parquet"),
    (rb"ARROW1|\xff\xff\xff\xff.{4}\x10\0\0\0", "Arrow"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document of an old Office"),
    (rb"SQLite format 3\0", "an SQLite database"),
    (rb"\x89HDF\r\n\x1a\n", "HDF5"),
    (rb"\x93NUMPY", "a NumPy array"),
    (rb"\x80[\x02-\x05][\x95c}\](]", "a Python pickle"),
    (rb"\x7fELF|MZ.{58}|\xca\xfe\xba\xbe|[\xce\xcf]\xfa\xed\xfe", "a program"),
    (rb"OggS|ID3|fLaC", "a sound"),
    (
        rb"version https://git-lfs\.github\.com/spec/",
        "a pointer of Git LFS (the file itself is fetched by git lfs pull)",
    ),
)
# Text, but neither a picture of pixels nor a table.
_MARKUP = (
    (
        rb"\s*(?:<\?xml[^>]{0,200}>\s*)?(?:<!--.{0,2000}?-->\s*)?(?:<!DOCTYPE svg[^>]{0,400}>\s*)?<svg[\s>]",
        "SVG",
    ),
    (rb"\s*<(?i:!doctype html|html)", "a page in HTML"),
)
_BINARY, _TEXT = (
    re.compile(b"|".join(b"(%s)" % pattern for pattern, _ in table), re.DOTALL) for table in (_SIGNATURES, _MARKUP)
)

_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16's, which it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_BOM_STARTS = {bom[:1] for bom, _ in _BOMS}
# Controls that no text has; what shells, printers and editors leave (tabs, form feeds, escapes, ...) is not among them.
_CONTROLS = bytes([*range(8), *range(14, 27), *range(28, 32)])
_MOST_CONTROLS = 0.03  # 0.1 of random bytes are controls


def what_is(head: bytes) -> str | None:
    """Return what a file that begins so is, if it is of a kind that is known ("a PNG picture")."""
    return _name(_BINARY.match(head), _SIGNATURES) or _name(_TEXT.match(head), _MARKUP)


def no_text(head: bytes, *, is_guarded: bool = False) -> str | None:
    """Return what a file that begins so is if it can't be text in UTF-8, or in an encoding that is marked; else None.

    Args:
        head: The first bytes, `HEAD_BYTES` or more of them if there are as many.
        is_guarded: Whether it is text of a form that is checked line by line, such as JSON: then only what is known is
            refused.
    """
    if bom_encoding(head):
        return None
    known = _name(_BINARY.match(head), _SIGNATURES)
    if known is not None or is_guarded:
        return known
    head = head[:HEAD_BYTES]
    controls = len(head) - len(head.translate(None, _CONTROLS))
    return "binary" if controls > max(2, _MOST_CONTROLS * len(head)) else None


def bom_encoding(head: bytes) -> str | None:
    """Return the encoding that a byte order mark tells, as Python calls it."""
    if head[:1] not in _BOM_STARTS:
        return None
    return next((encoding for bom, encoding in _BOMS if head.startswith(bom)), None)


def _name(match: re.Match[bytes] | None, table: tuple[tuple[bytes, str], ...]) -> str | None:
    return None if match is None or match.lastindex is None else table[match.lastindex - 1][1]
