"""gimp-help: the manual of GIMP as interleaved pages, and its figures with their captions.

Source: the Debian package `gimp-help-en`, GFDL 1.2 or later; its copyright file is in `gimp-help-common`.
"""

from __future__ import annotations

import re
import tempfile
import xml.etree.ElementTree as Xml
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mm1.corpora.drawings import bounded, check_size
from mm1.corpora.heldout import check_share, is_held_out
from mm1.corpora.material import Material
from mm1.data.readers.html import Html
from mm1.data.readers.layout import caption_parts
from mm1.data.readers.pictures import PictureError, picture_size
from mm1.data.readers.reader import Notes, Shard
from mm1.data.skips import Skips
from mm1.document import Document, Image
from mm1.errors import UserError
from mm1.fetch.debian import fetch_deb, package_name, read_deb, read_licence
from mm1.processing.images import ImageError
from mm1.progress import track

PACKAGE, LICENCE_PACKAGE = "gimp-help-en", "gimp-help-common"
SMALLEST_PICTURE = 64  # pixels of the longer side; smaller pictures are icons

_FOLDER = "usr/share/gimp/2.0/help/en/"
_XHTML = "{http://www.w3.org/1999/xhtml}"
_NUMBER = re.compile(r"^Figure\s+[\d.]+\s+")
_ORIGINAL = re.compile(r"(the )?(original|initial)( image| picture| photo)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Figure:
    """One picture with its caption.

    Attributes:
        picture: The picture's path below the manual's folder.
        caption: The figure's title and the caption of this picture in it.
        page: The page of the figure.
    """

    picture: str
    caption: str
    page: str


def build(*, size: int = 256, images: int = 2, heldout: float = 0.1, seed: int = 0) -> Material:
    """Return the material of gimp-help.

    Splits: `train` and `heldout` (pages with pictures), `train-text` and `heldout-text` (pages without pictures),
    `train-captions` and `heldout-captions` (figures; equal captions share a split).

    Args:
        size: Most pixels of the longer side of a picture.
        images: A page with pictures, but with fewer than this, is left out.
        heldout: Share of the pages and of the captions that is held out.
        seed: The seed of the choice of held-out pages and captions.
    """
    check_size(size)
    check_share(heldout)
    if images < 1:
        raise UserError(f"option images of corpus gimp-help must be at least 1 (given: {images})")
    archive = fetch_deb(PACKAGE)
    files = {
        name.removeprefix(_FOLDER): content
        for name, content in read_deb(archive, lambda name: name.startswith(_FOLDER))
    }
    skips = Skips()
    pictures = _pictures(files, size, skips)
    pages = _pages(files, pictures, skips)
    if not pages:
        raise UserError(f"{archive}: it has no pages in {_FOLDER}: delete it to download it again")
    splits: dict[str, list[Document]] = {
        f"{split}{kind}": [] for kind in ("", "-text", "-captions") for split in ("train", "heldout")
    }
    for page in _documents(pages, pictures, images, skips):
        split = "heldout" if is_held_out(heldout, seed, page.id) else "train"
        splits[split if page.images else f"{split}-text"].append(page)
    for figure in _figures(pages, pictures, skips):
        split = "heldout" if is_held_out(heldout, seed, figure.caption.casefold()) else "train"
        parts = caption_parts(Image(pictures[figure.picture], figure.picture), figure.caption)
        meta = {"caption": figure.caption, "page": figure.page}
        splits[f"{split}-captions"].append(Document(figure.picture, "caption", parts, meta))
    return Material(
        splits=splits,
        licence=read_licence(fetch_deb(LICENCE_PACKAGE)),
        sources=[f"Debian package {package_name(archive)}: {_FOLDER}"],
        derived=f"Pages are without their navigation and without icons (below {SMALLEST_PICTURE} pixels a side); "
        f"pictures with more than {size} pixels a side are scaled down. A figure's caption is its title without "
        "the number, then what is said of the single picture. Pages and captions are held out independently of each "
        "other.",
        skips=skips,
    )


def _pictures(files: Mapping[str, bytes], size: int, skips: Skips) -> dict[str, bytes]:
    """Return the pictures that are not icons, with limited size, by their paths."""
    pictures = {}
    names = [name for name in sorted(files) if name.endswith((".png", ".jpg"))]
    for name in track(names, "gimp-help: pictures"):
        try:
            if max(picture_size(files[name])) < SMALLEST_PICTURE:
                skips.add(f"icon below {SMALLEST_PICTURE} pixels", name)
            else:
                pictures[name] = bounded(files[name], size)
        except (PictureError, ImageError):
            skips.add("damaged picture", name)
    return pictures


def _pages(files: Mapping[str, bytes], pictures: Mapping[str, bytes], skips: Skips) -> dict[str, Xml.Element]:
    """Return the pages without navigation and without references to other pictures than the given ones."""
    pages = {}
    for name in sorted(files):
        if not name.endswith(".html"):
            continue
        try:
            page = Xml.fromstring(files[name])  # noqa: S314 - expat limits what entities may expand to
        except Xml.ParseError:
            skips.add("damaged page", name)
            continue
        for element in page.iter():
            element.tag = element.tag.removeprefix(_XHTML)
        for block in page.iter("div"):
            if block.get("class") in ("navheader", "navfooter"):
                block.clear()
        for image in page.iter("img"):
            if image.get("src", "") not in files:
                skips.add("the picture's file is missing", f"{name}: {image.get('src')}")
            if image.get("src") not in pictures:
                image.attrib.pop("src", None)
        pages[name] = page
    return pages


def _documents(
    pages: Mapping[str, Xml.Element], pictures: Mapping[str, bytes], images: int, skips: Skips
) -> Iterator[Document]:
    with tempfile.TemporaryDirectory(prefix="mm1-gimp-help-") as folder:
        root = Path(folder)
        for name, picture in pictures.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(picture)
        for name, page in pages.items():
            (root / name).write_bytes(Xml.tostring(page, "utf-8", method="html"))
        shard = Shard(folder, tuple(str(root / name) for name in pages))
        for document in Html().read(shard, Notes(skipped=skips)):
            if 0 < len(document.images) < images:
                skips.add(f"page with fewer than {images} pictures", document.id)
            else:
                yield document


def _figures(pages: Mapping[str, Xml.Element], pictures: Mapping[str, bytes], skips: Skips) -> Iterator[Figure]:
    """Yield every picture that has a caption; equal pictures only once."""
    seen: set[bytes] = set()
    for name, page in pages.items():
        titled: set[Xml.Element] = set()
        for block in page.iter("div"):
            objects = [block] if block.get("class") == "mediaobject" and block not in titled else []
            title = ""
            if block.get("class") == "figure":
                objects = [inner for inner in block.iter("div") if inner.get("class") == "mediaobject"]
                titled.update(objects)
                title = _NUMBER.sub("", _text(block.find("p[@class='title']"))).rstrip(".")
            for shown in objects:
                image = shown.find(".//img[@src]")
                if image is None:
                    continue
                picture = image.attrib["src"]
                said = _text(shown.find("div[@class='caption']"))
                if _ORIGINAL.fullmatch(said.rstrip(".")):
                    skips.add("caption that only says `original`", f"{name}: {picture}")
                elif not (title or said):
                    skips.add("picture without a caption", f"{name}: {picture}")
                elif pictures[picture] in seen:
                    skips.add("picture captioned before", f"{name}: {picture}")
                else:
                    seen.add(pictures[picture])
                    yield Figure(picture, ": ".join(filter(None, (title, said))), name)


def _text(element: Xml.Element | None) -> str:
    """Return an element's text on one line; empty for None."""
    return "" if element is None else " ".join("".join(element.itertext()).split())
