"""Bad input: nothing crashes, nothing is lost without being counted."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as PILImage

from mm1.data.build import build_from, read_shard
from mm1.data.corpus import Split
from mm1.data.readers import READERS, make_reader
from mm1.data.readers.picture_folder import PictureFolder
from mm1.data.readers.pictures import PictureError, picture_size
from mm1.data.readers.reader import Notes, Shard
from mm1.data.readers.rows import UNEXPECTED, Place
from mm1.errors import UserError
from mm1.files import write_json
from mm1.processing.images import decode_image
from mm1.processing.signatures import HEAD_BYTES, no_text
from tests.data.sample_sources import picture, write_every_format, write_files


def png_header(width: int, height: int) -> bytes:
    """Return a PNG of nothing but its header and the beginning of its pixels."""
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr)) + b"\0\0\0\0IDAT"


def encoded(image: PILImage.Image, format_: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


def animated() -> bytes:
    frames = [PILImage.new("RGB", (8, 6), color) for color in ("red", "blue")]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def palette_with_transparency() -> bytes:
    return encoded(PILImage.new("P", (8, 6)), "PNG", transparency=0)


def rotated_by_exif() -> bytes:
    exif = PILImage.Exif()
    exif[0x0112] = 6
    return encoded(PILImage.new("RGB", (8, 6)), "JPEG", exif=exif)


UNUSUAL = {
    "animated": animated(),
    "cmyk": encoded(PILImage.new("CMYK", (8, 6)), "JPEG"),
    "16-bit": encoded(PILImage.new("I;16", (8, 6), 40_000), "PNG"),
    "palette": palette_with_transparency(),
    "exif": rotated_by_exif(),
    "grey-alpha": encoded(PILImage.new("LA", (8, 6)), "PNG"),
    "bilevel": encoded(PILImage.new("1", (8, 6)), "TIFF"),
    "webp": encoded(PILImage.new("RGBA", (8, 6)), "WEBP"),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_pictures_are_taken_and_can_be_decoded(name: str) -> None:
    assert picture_size(UNUSUAL[name]) == (8, 6)
    assert decode_image(UNUSUAL[name]).size == ((6, 8) if name == "exif" else (8, 6))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "zero bytes"),
        (b"\x89PNG\r\n", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (png_header(20_000, 6_000), "more than 100,000,000 pixels"),
        (png_header(2**31 - 1, 2**31 - 1), "more than 100,000,000 pixels"),
        (png_header(0, 10), "not a picture|without pixels"),
    ],
)
def test_what_cannot_be_a_picture_is_refused_from_its_header(content: bytes, reason: str) -> None:
    with pytest.raises(PictureError, match=reason):
        picture_size(content)


def test_pictures_outside_of_the_folder_are_not_read(tmp_path: Path) -> None:
    write_files(tmp_path, {"secret.png": picture(), "in/a.png": picture()})
    notes = Notes()
    place = Place("x", notes, PictureFolder((str(tmp_path / "in"),)))
    for reference in (
        "../secret.png",
        str(tmp_path / "secret.png"),
        "a/../../secret.png",
        "%2e%2e/secret.png",
    ):
        assert place.picture_or_loss(reference) is None
    assert notes.lost.counts == {"the picture lies outside of the source folder": 4}
    assert place.picture_or_loss("a.png") is not None
    for reference in ("a\0.png", "x" * 5000, ".", ""):
        assert place.picture_or_loss(reference) is None
    assert sum(notes.lost.counts.values()) == notes.pictures_left_out == 8


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    try:
        write_files(tmp_path / "from", {"a\udce9.png": picture(), "a\udce9.txt": "a", "b\udce9.png": b""})
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    write_files(tmp_path / "from", {"b\udce9.txt": "b"})
    info = build_from("image-folder", [str(tmp_path / "from")], tmp_path / "to", workers=1)
    assert [document.id for document in Split(tmp_path / "to" / "train")] == ["a\ufffd.png"]
    assert info["skipped"]["picture of zero bytes"]["count"] == 1


CASES_PER_FORMAT = 125
TROUBLE = (b"\0", b"\xff\xfe", b'"', b"{", b"<![", b"<", b"]", b"\n", b"\\ud800")


@pytest.mark.parametrize("format_", [name for name in READERS if name != "hub"])
def test_mutated_files(tmp_path: Path, format_: str) -> None:
    """Ten formats of 125 cases make more than a thousand: every record is a document or is counted as left out."""
    draw = random.Random(format_)
    patterns = write_every_format(tmp_path)[format_]
    reader = make_reader(format_, **({"pictures": str(tmp_path / "mmc4" / "images")} if format_ == "mmc4" else {}))
    shards = reader.shards(patterns)
    out = tmp_path / "out.arrow"
    files = {file: shard.root for shard in shards for file in shard.files}
    beside = [str(file) for file in (tmp_path / "folder").rglob("*.*")] if format_ == "image-folder" else []
    targets = sorted({*files, *beside})
    contents = {target: Path(target).read_bytes() for target in targets}
    known = documents = 0
    for _ in range(CASES_PER_FORMAT):
        target = draw.choice(targets)
        mutated = mutate(contents[target], draw)
        Path(target).write_bytes(mutated)
        try:
            infos = {file: read_shard(reader, Shard(root, (file,)), out) for file, root in files.items()}
        except UserError as error:
            if "there is no column" not in str(error):
                raise
        else:
            write_json(tmp_path / "infos.json", infos)
            for file, info in infos.items():
                left_out = sum(entry["count"] for entry in info["skipped"].values())
                assert info["read"] == info["documents"] + left_out
                assert not [reason for reason in info["skipped"] if reason.startswith(UNEXPECTED)]
                number = records_of(file, Path(file).read_bytes())
                rest = info["skipped"].get("damaged tar: the rest of it could not be read", {"count": 0})["count"]
                assert number in (None, info["read"], info["read"] - rest), (file, info["skipped"])
                assert info["read"] >= 1
                known += number is not None
            documents += sum(info["documents"] for info in infos.values())
        Path(target).write_bytes(contents[target])
    assert documents > 0
    assert known >= 10


def records_of(file: str, content: bytes) -> int | None:
    """Return how many records a file has, counted without the readers; None where damage leaves that open."""
    if file.endswith(".parquet"):
        try:
            metadata = pq.read_metadata(file)
        except (pa.ArrowException, OSError, ValueError):
            return None
        groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        return metadata.num_rows if sum(groups) == metadata.num_rows > 0 and min(groups) >= 0 else None
    if file.endswith(".jsonl"):
        is_lines = content.startswith(b'{"') and not re.match(rb"\{[^\n]*[{\[][ \t\r]*\n", content)
        return sum(bool(line.strip()) for line in content.split(b"\n")) if is_lines and is_text(content) else None
    if file.endswith("data.json"):
        try:
            records = json.loads(content)
        except (ValueError, RecursionError):
            return None
        return len(records) if isinstance(records, list) and records else None
    if file.endswith(".tar.gz"):
        return None
    if file.endswith(".tar"):
        try:
            with tarfile.open(file, errorlevel=2) as tar:
                names = [member.name for member in tar if member.isreg()]
        except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, OverflowError):
            return None
        whole = [f"{number:09d}.{end}" for number in range(7) for end in ("jpg", "txt", "json")]
        return len(names) // 3 if names in (whole[:12], whole[12:]) else None
    return 1  # a page, a text, a picture


def is_text(content: bytes) -> bool:
    return no_text(content[:HEAD_BYTES]) is None


def mutate(content: bytes, draw: random.Random) -> bytes:
    """Return the content with some damage: bits, bytes, stretches, the end."""
    mutated = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 10))):
        place, length = draw.randrange(len(mutated) + 1), draw.choice((1, 2, 8, 100, 512))
        match draw.randrange(6):
            case 0 if mutated:
                mutated[draw.randrange(len(mutated))] ^= 1 << draw.randrange(8)
            case 1:
                mutated[place : place + length] = draw.randbytes(length)
            case 2:
                del mutated[place : place + length]
            case 3:
                mutated[place:place] = draw.choice(TROUBLE)
            case 4:
                mutated[place:place] = mutated[:length]
            case 5:
                del mutated[place:]
    return bytes(mutated)
