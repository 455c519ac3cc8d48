"""Bad input: nothing crashes, nothing is lost without being counted."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage

from mm1.data.build import build_from, read_shard
from mm1.data.corpus import Split
from mm1.data.readers import READERS, make_reader
from mm1.data.readers.picture_folder import PictureFolder
from mm1.data.readers.pictures import PictureError, picture_size
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.data.readers.rows import Place
from mm1.errors import UserError
from mm1.files import write_json
from mm1.processing.images import decode_image
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
    """Eight formats of 125 cases make a thousand."""
    draw = random.Random(format_)
    patterns = write_every_format(tmp_path)[format_]
    reader = make_reader(format_, **({"pictures": str(tmp_path / "mmc4" / "images")} if format_ == "mmc4" else {}))
    shards = reader.shards(patterns)
    out = tmp_path / "out.arrow"
    whole = {file: count(file, reader, shards, out) for shard in shards for file in shard.files}
    beside = [str(file) for file in (tmp_path / "folder").rglob("*.*")] if format_ == "image-folder" else []
    targets = sorted({*whole, *beside})
    contents = {target: Path(target).read_bytes() for target in targets}
    read = 0
    for _ in range(CASES_PER_FORMAT):
        target = draw.choice(targets)
        mutated = mutate(contents[target], draw)
        Path(target).write_bytes(mutated)
        try:
            infos = [read_shard(reader, shard, out) for shard in shards]
        except UserError as error:
            if "there is no column" not in str(error):
                raise
        else:
            write_json(tmp_path / "infos.json", infos)
            documents = sum(info["documents"] for info in infos)
            notes = sum(e["count"] for info in infos for key in ("skipped", "changed") for e in info[key].values())
            others = sum(number for file, number in whole.items() if file != target)
            if target.endswith(".jsonl"):  # lines that are gone can't be missed; those that are there must count
                assert documents + notes >= others + (sum(bool(line.strip()) for line in mutated.split(b"\n")) or 1)
            elif target.endswith("data.json"):  # nor can records between others
                assert documents + notes >= others + 1
            else:
                assert documents >= sum(whole.values()) or notes
            read += documents
        Path(target).write_bytes(contents[target])
    assert read > 0


def count(file: str, reader: Reader, shards: list[Shard], out: Path) -> int:
    """Return how many documents come from a file."""
    root = next(shard.root for shard in shards if file in shard.files)
    return int(read_shard(reader, Shard(root, (file,)), out)["documents"])


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
