"""Metadata never decide whether a picture is read, and turn it once; deep and unusual pixels are read or named."""

from __future__ import annotations

import base64
import io
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from mm1.processing.images import ImageError, decode_image, picture_size, upright_size

GRADIENT = PILImage.linear_gradient("L").resize((24, 16)).convert("RGB")
ORIENTATION = 0x0112
# 16 x 16 pixels of HEIC, from pillow-heif.
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAXxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9j"
    "AAAAAERAAAEAAQAAAAABoAABAAAAAAAAACYAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/Glw"
    "cnAAAADcaXBjbwAAAHVodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQApQgEBA3AA"
    "AAMAkAAAAwAAAwAeoCCBBZbqrprm4CGgwIAAAAyAAAADAIRiAAEABkQBwXPBiQAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABA"
    "AAAAQAAAAChjbGFwAAAAEAAAAAEAAAAQAAAAAf///9AAAAAC////0AAAAAIAAAAQcGl4aQAAAAADCAgIAAAAGGlwbWEAAAAAAAAAAQABBYEC"
    "AwWEAAAALm1kYXQAAAAiKAGvBBISIOD4AoY/WWlSvSCjGn1UYzRWdSCgM6mMkzC+YA=="
)


def encoded(format_: str, image: PILImage.Image = GRADIENT, **how: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format_, **how)
    return out.getvalue()


def exif(orientation: object = 6) -> bytes:
    tags = PILImage.Exif()
    tags[ORIENTATION] = orientation
    return tags.tobytes()


def png(*chunks: tuple[bytes, bytes], behind: bool = False, wrong_sum: bool = False) -> bytes:
    """Return a PNG with further chunks before or behind its pixels."""
    data = encoded("PNG")
    more = b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content) ^ wrong_sum)
        for kind, content in chunks
    )
    place = len(data) - 12 if behind else 33
    return data[:place] + more + data[place:]


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    data = encoded("JPEG")
    more = b"".join(bytes([0xFF, marker]) + struct.pack(">H", len(c) + 2) + c for marker, c in segments)
    return data[:2] + more + data[2:]


def webp(name: bytes, length: int | None = None, content: bytes | None = None) -> bytes:
    """Return a WebP with EXIF and a colour profile, one of them changed."""
    data = encoded("WEBP", lossless=True, exif=exif(), icc_profile=b"p" * 60)
    place = data.index(name)
    if length is not None:
        data = data[: place + 4] + struct.pack("<I", length) + data[place + 8 :]
    return data if content is None else data[: place + 8] + content + data[place + 8 + len(content) :]


def tiff(*tags: tuple[int, int, int, int], compression: str | None = None) -> bytes:
    """Return a TIFF with further tags, each with its type, number of values, and their place or value."""
    data = encoded("TIFF", compression=compression)
    (place,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, place)
    entries = {data[at : at + 2]: data[at : at + 12] for at in range(place + 2, place + 2 + 12 * count, 12)}
    entries |= {struct.pack("<H", tag): struct.pack("<HHII", tag, *entry) for tag, *entry in tags}
    ordered = sorted(entries.values(), key=lambda entry: struct.unpack_from("<H", entry))
    directory = struct.pack("<H", len(ordered)) + b"".join(ordered) + bytes(4)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory


LARGE = zlib.compress(bytes(2 << 20))
MANY = [(b"zTXt", b"C%d\0\0" % n + zlib.compress(b"a" * (1 << 20))) for n in range(70)]
BROKEN_EXIF = (b"", b"trash", b"Exif\0\0", b"MM\0*\0\0\0\x08\0\5garbage", b"MM\0*\xff\xff\xff\xff")
BROKEN = {
    "text larger than Pillow's limit": png((b"zTXt", b"C\0\0" + LARGE)),
    "text behind the pixels": png((b"zTXt", b"C\0\0" + LARGE), behind=True),
    "international text": png((b"iTXt", b"k\0\1\0en\0\0" + LARGE)),
    "many texts, more than MAX_TEXT_MEMORY": png(*MANY),
    "profile larger than Pillow's limit": png((b"iCCP", b"p\0\0" + LARGE)),
    "profile of an unknown packing": png((b"iCCP", b"p\0\7" + LARGE[:50])),
    "profile without a name": png((b"iCCP", b"x")),
    "wrong sum": png((b"tEXt", b"a\0b"), wrong_sum=True),
    **{f"short {kind.decode()}": png((kind, b"")) for kind in (b"gAMA", b"cHRM", b"pHYs", b"sRGB", b"acTL", b"eXIf")},
    **{f"EXIF of PNG: {content!r}": png((b"eXIf", content)) for content in BROKEN_EXIF},
    **{f"EXIF of JPEG: {content!r}": jpeg((0xE1, b"Exif\0\0" + content)) for content in BROKEN_EXIF},
    "profile of JPEG": jpeg((0xE2, b"ICC_PROFILE\0")),
    "part of a profile": jpeg((0xE2, b"ICC_PROFILE\0\1\5trash")),
    "index of pictures": jpeg((0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff")),
    "Photoshop's": jpeg((0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10\0")),
    "short JFIF": jpeg((0xE0, b"JFIF\0")),
    "short Adobe": jpeg((0xEE, b"Adobe")),
    "orientation in XMP": jpeg((0xE1, b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="9"/>')),
    "EXIF of WebP": webp(b"EXIF", content=b"trash"),
    "longer EXIF of WebP": webp(b"EXIF", 9999),
    "longer profile of WebP": webp(b"ICCP", 99999),
    "longer profile of a lossy WebP": webp(b"ICCP", 2**31),
    "EXIF of TIFF elsewhere": tiff((34665, 4, 1, 2**32 - 1)),
    "XMP of TIFF as a number": tiff((700, 4, 1, 3), compression="tiff_lzw"),
    "XMP of TIFF as text": tiff((700, 2, 100, 1)),
    "unknown orientation": tiff((274, 3, 1, 9)),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_metadata(what: str) -> None:
    data = BROKEN[what]
    assert picture_size(data) == (24, 16)
    assert upright_size(data) == (24, 16)
    decoded = decode_image(data)
    assert decoded.size == (24, 16)
    difference = np.abs(np.asarray(decoded, dtype=int) - np.asarray(GRADIENT, dtype=int))
    assert difference.max() <= 4, "the pixels are the picture's"


def test_broken_metadata_of_tiff_at_random() -> None:
    draw = random.Random(0)
    tags = (34675, 34665, 34853, 700, 33723, 270, 305, 306, 315, 282, 296)
    for _ in range(300):
        kinds, counts, values = (0, 1, 2, 3, 4, 5, 7, 12, 13, 99), (0, 1, 3, 10**6, 2**32 - 1), (0, 1, 50, 2**31)
        lies = [tuple(map(draw.choice, (tags, kinds, counts, values))) for _ in range(draw.randint(1, 3))]
        data = tiff(*lies, compression=draw.choice([None, "tiff_lzw", "tiff_adobe_deflate"]))  # type: ignore[arg-type]
        assert (picture_size(data), decode_image(data).size, upright_size(data)) == ((24, 16),) * 3


def in_every_format(orientation: int) -> Iterator[tuple[str, bytes]]:
    for format_ in ("JPEG", "PNG", "WEBP", "AVIF"):
        yield format_, encoded(format_, CORNER, exif=exif(orientation))
    for compression in (None, "tiff_lzw", "jpeg"):
        directory = ImageFileDirectory_v2()
        directory[274] = orientation
        yield f"TIFF, {compression}", encoded("TIFF", CORNER, tiffinfo=directory, compression=compression)
    content = exif(orientation).removeprefix(b"Exif\0\0")
    data = encoded("PNG", CORNER)
    chunk = struct.pack(">I", len(content)) + b"eXIf" + content + struct.pack(">I", zlib.crc32(b"eXIf" + content))
    yield "PNG, behind the pixels", data[:-12] + chunk + data[-12:]
    big = zlib.compress(bytes(2 << 20))
    profile = struct.pack(">I", len(big) + 3) + b"iCCPp\0\0" + big + bytes(4)
    yield "PNG, with a profile that is too large", data[:33] + profile + data[33:-12] + chunk + data[-12:]


CORNER = PILImage.new("RGB", (64, 32))
CORNER.paste((255, 255, 255), (0, 0, 16, 16))
# Where the white corner of the stored picture is to be seen: left or right, top or bottom.
UPRIGHT = {1: "lt", 2: "rt", 3: "rb", 4: "lb", 5: "lt", 6: "rt", 7: "rb", 8: "lb"}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_is_applied_once(orientation: int) -> None:
    for format_, data in in_every_format(orientation):
        image = decode_image(data)
        assert image.size == ((32, 64) if orientation >= 5 else (64, 32)), format_
        assert upright_size(data) == image.size, format_
        x = 4 if UPRIGHT[orientation][0] == "l" else image.width - 4
        y = 4 if UPRIGHT[orientation][1] == "t" else image.height - 4
        assert np.asarray(image)[y, x].min() > 200, format_
        assert np.asarray(image).mean() < 50, format_


def deep(values: np.ndarray) -> np.ndarray:
    """Return one channel of what a TIFF of these values decodes to, as a row."""
    return np.asarray(decode_image(encoded("TIFF", PILImage.fromarray(values.reshape(16, 24)))))[:, :, 0].ravel()


def test_deep_pixels_are_scaled() -> None:
    ramp = np.linspace(0, 1, 384)
    wanted = ramp * 255
    cases: dict[str, np.ndarray] = {
        "floats of 0 to 1": ramp.astype(np.float32),
        "floats of 0 to 255": (ramp * 255).astype(np.float32),
        "floats of any range": (ramp * 4050 - 50).astype(np.float32),
        "16 bits": (ramp * 65535).astype(np.uint16),
        "16 bits in 32": (ramp * 65535).astype(np.int32),
        "32 bits": (ramp * 2_000_000_000).astype(np.int32),
        "signed": ((ramp - 0.5) * 60_000).astype(np.int32),
    }
    for name, values in cases.items():
        assert np.abs(deep(values) - wanted).max() <= 1, name
    odd = ramp.astype(np.float32)
    odd[[0, 100, 383]] = [np.nan, np.inf, -np.inf]
    scaled = deep(odd)
    assert scaled[[0, 100, 383]].tolist() == [0, 0, 0]
    assert np.abs(scaled[1:100] - wanted[1:100]).max() <= 1
    assert deep(np.full(384, 7e9, np.float32)).tolist() == [0] * 384
    assert deep(np.full(384, np.nan, np.float32)).tolist() == [0] * 384


@pytest.mark.parametrize("format_", ["JPEG2000", "PPM", "ICO", "BMP", "GIF", "AVIF"])
def test_further_formats(format_: str) -> None:
    image = PILImage.linear_gradient("L").resize((16, 16)).convert("RGB")
    data = encoded(format_, image)
    assert picture_size(data) == (16, 16)
    assert np.abs(np.asarray(decode_image(data), int) - np.asarray(image, int)).mean() < 12


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<!DOCTYPE html><html>404", "a page in HTML"),
        (b"%PDF-1.4\n", "a PDF"),
        (b"8BPS\0\1" + bytes(30), "a Photoshop file"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a pointer of Git LFS"),
    ],
)
def test_what_is_no_picture_is_named(data: bytes, what: str) -> None:
    for use in (picture_size, decode_image):
        with pytest.raises(ImageError, match=f"not a picture that is read: it is {what}"):
            use(data)


def test_heic_names_what_reads_it(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(HEIC)
    program = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from mm1.processing.images import decode_image\n"
        f"decode_image(open({str(tmp_path / 'a.heic')!r}, 'rb').read())"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (
        "ImageError: not a readable picture (a HEIC picture, which is read with pip install 'mm1[heif]'"
        in result.stderr
    )


def test_heic_is_read_where_its_library_is() -> None:
    pytest.importorskip("pillow_heif")
    assert picture_size(HEIC) == upright_size(HEIC) == decode_image(HEIC).size == (16, 16)
